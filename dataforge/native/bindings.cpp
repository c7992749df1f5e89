// What Python sees of the C++ code, one function a subject. Arguments are checked here; the work runs without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "bpe_train.hpp"
#include "crc32c.hpp"
#include "encoder.hpp"
#include "gather.hpp"
#include "locate.hpp"
#include "word_counts.hpp"

namespace nb = nanobind;

// ---- shards: checksums and row gathering -------------------------------------------------------------------------

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Int64s = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Addresses = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Uint32sOut = nb::ndarray<uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Out = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <typename T>
void gather_spans(Int64s part, Int64s start, Int64s length, Addresses address, Int64s num_tokens, int source_bytes,
                  Out<T> out) {
    if (start.shape(0) != part.shape(0) || length.shape(0) != part.shape(0) || num_tokens.shape(0) != address.shape(0))
        throw std::invalid_argument("the arrays differ in length");
    if (source_bytes != 2 && source_bytes != 4) throw std::invalid_argument("tokens have 2 or 4 bytes");
    const dataforge::Spans spans{part.data(), start.data(), length.data(), part.shape(0)};
    const dataforge::MappedParts parts{address.data(), num_tokens.data(), address.shape(0)};
    size_t total = 0;
    const size_t unsound = dataforge::first_unsound(spans, parts, out.shape(0), total);
    if (unsound != spans.count)
        throw std::out_of_range("span " + std::to_string(unsound) + " lies outside its part or the output");
    if (total != out.shape(0))
        throw std::invalid_argument("the spans hold " + std::to_string(total) + " tokens, the output " +
                                    std::to_string(out.shape(0)));
    nb::gil_scoped_release release;
    if (source_bytes == 2)
        dataforge::gather<uint16_t>(spans, parts, out.data());
    else
        dataforge::gather<uint32_t>(spans, parts, out.data());
}

size_t locate_documents(Int64s part, Int64s number, Addresses numbers_at, Addresses ends_at, Int64s first_number,
                        Int64s num_documents, Out<int64_t> start, Out<int64_t> length) {
    const size_t count = part.shape(0), parts = ends_at.shape(0);
    if (number.shape(0) != count || start.shape(0) != count || length.shape(0) != count || numbers_at.shape(0) != parts ||
        first_number.shape(0) != parts || num_documents.shape(0) != parts)
        throw std::invalid_argument("the arrays differ in length");
    const dataforge::DocumentTables tables{numbers_at.data(), ends_at.data(), first_number.data(), num_documents.data(),
                                           parts};
    nb::gil_scoped_release release;
    return dataforge::locate(tables, part.data(), number.data(), count, start.data(), length.data());
}

void bind_shards(nb::module_& m) {
    m.def("crc32c", [](Bytes data, uint32_t value) {
        nb::gil_scoped_release release;
        return dataforge::crc32c(data.data(), data.shape(0), value);
    }, nb::arg("data"), nb::arg("value") = 0, "CRC-32C of a buffer, going on from `value`.");
    m.def("crc32c_table", [](Bytes data, uint32_t value) {
        nb::gil_scoped_release release;
        return dataforge::crc32c_table(data.data(), data.shape(0), value);
    }, nb::arg("data"), nb::arg("value") = 0, "The same by tables alone, as on machines without SSE4.2.");
    m.def("crc32c_pages", [](Bytes data, size_t page_bytes, Uint32sOut out) {
        const size_t size = data.shape(0);
        if (page_bytes == 0 || out.shape(0) != size / page_bytes + (size % page_bytes != 0))
            throw std::invalid_argument("one checksum a page is needed");
        nb::gil_scoped_release release;
        for (size_t i = 0; i < out.shape(0); ++i) {
            const size_t begin = i * page_bytes, rest = size - begin;
            out.data()[i] = dataforge::crc32c(data.data() + begin, rest < page_bytes ? rest : page_bytes);
        }
    }, nb::arg("data"), nb::arg("page_bytes"), nb::arg("out"), "CRC-32C of each page of a buffer, the last may be short.");
    m.attr("crc32c_hardware") = dataforge::crc32c_has_hardware();

    m.def("locate_documents", &locate_documents, nb::arg("part"), nb::arg("number"), nb::arg("numbers_at"),
          nb::arg("ends_at"), nb::arg("first_number"), nb::arg("num_documents"), nb::arg("start").noconvert(),
          nb::arg("length").noconvert(), "Finds documents in mapped parts; the first that is not there, else their count.");

    const char* doc = "Copies spans of mapped parts, one behind the other, to `out`.";
    m.def("gather_spans", &gather_spans<int64_t>, nb::arg("part"), nb::arg("start"), nb::arg("length"),
          nb::arg("address"), nb::arg("num_tokens"), nb::arg("source_bytes"), nb::arg("out").noconvert(), doc);
    m.def("gather_spans", &gather_spans<int32_t>, nb::arg("part"), nb::arg("start"), nb::arg("length"),
          nb::arg("address"), nb::arg("num_tokens"), nb::arg("source_bytes"), nb::arg("out").noconvert(), doc);
    m.def("gather_spans", &gather_spans<uint32_t>, nb::arg("part"), nb::arg("start"), nb::arg("length"),
          nb::arg("address"), nb::arg("num_tokens"), nb::arg("source_bytes"), nb::arg("out").noconvert(), doc);
    m.def("gather_spans", &gather_spans<uint16_t>, nb::arg("part"), nb::arg("start"), nb::arg("length"),
          nb::arg("address"), nb::arg("num_tokens"), nb::arg("source_bytes"), nb::arg("out").noconvert(), doc);
}

}  // namespace

// ---- tokenizers: texts, word counts, training, encoding ----------------------------------------------------------

namespace {

using Int32Rows = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Uint32s = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Texts as they lie in Python's memory or in Arrow's, kept alive by this object.
struct TextBatch {
    std::vector<dataforge::TextView> views;
    std::vector<nb::object> owners;

    void add_sequence(nb::object sequence) {
        PyObject* copy = PySequence_Tuple(sequence.ptr());    // a list could change while the work runs without the GIL
        if (!copy) throw nb::python_error();
        owners.push_back(nb::steal(copy));
        const Py_ssize_t num = PyTuple_GET_SIZE(copy);
        views.reserve(views.size() + static_cast<size_t>(num));
        for (Py_ssize_t i = 0; i < num; ++i) {
            PyObject* item = PyTuple_GET_ITEM(copy, i);
            dataforge::TextView view;
            if (PyUnicode_Check(item)) {
                view.data = PyUnicode_DATA(item);
                view.length = static_cast<size_t>(PyUnicode_GET_LENGTH(item));
                const int bytes_a_character = PyUnicode_KIND(item);
                view.kind = PyUnicode_IS_ASCII(item) ? dataforge::TextView::kUtf8
                                                     : static_cast<dataforge::TextView::Kind>(bytes_a_character);
            } else if (PyBytes_Check(item)) {
                view.data = PyBytes_AS_STRING(item);
                view.length = static_cast<size_t>(PyBytes_GET_SIZE(item));
            } else {
                throw std::invalid_argument("text " + std::to_string(views.size()) + " is neither str nor bytes but " +
                                            Py_TYPE(item)->tp_name);
            }
            views.push_back(view);
        }
    }

    template <typename Offset>
    void add_arrow(nb::ndarray<const Offset, nb::ndim<1>, nb::c_contig, nb::device::cpu> offsets, Bytes data) {
        const Offset* offset = offsets.data();
        for (size_t i = 0; i + 1 < offsets.shape(0); ++i) {
            if (offset[i] < 0 || offset[i + 1] < offset[i] || static_cast<uint64_t>(offset[i + 1]) > data.shape(0))
                throw std::invalid_argument("the offsets of text " + std::to_string(views.size()) + " are out of order");
            views.push_back({data.data() + offset[i], static_cast<size_t>(offset[i + 1] - offset[i])});
        }
        owners.push_back(nb::cast(offsets));
        owners.push_back(nb::cast(data));
    }
};

template <typename T>
nb::object array_of(std::vector<T> values) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner));
}

template <typename T>
nb::object array_of(dataforge::Buffer<T> values) {
    const size_t size = values.size();
    values.reserve_more(size == 0);
    T* data = values.release();
    nb::capsule owner(data, [](void* p) noexcept { std::free(p); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {size}, owner));
}

std::vector<dataforge::CountedWord> counted_words(Bytes bytes, Int64s offsets, Int64s counts) {
    if (offsets.shape(0) != counts.shape(0) + 1) throw std::invalid_argument("words and counts differ in number");
    std::vector<dataforge::CountedWord> words(counts.shape(0));
    for (size_t i = 0; i < words.size(); ++i) {
        const int64_t first = offsets.data()[i], last = offsets.data()[i + 1];
        if (first < 0 || last <= first || static_cast<uint64_t>(last) > bytes.shape(0) || counts.data()[i] <= 0)
            throw std::invalid_argument("word " + std::to_string(i) + " is empty, out of bounds or has no count");
        words[i] = {bytes.data() + first, static_cast<size_t>(last - first), counts.data()[i]};
    }
    return words;
}

// The same, and in ascending order without repeats, with a total that training can add up.
std::vector<dataforge::CountedWord> words_in_order(Bytes bytes, Int64s offsets, Int64s counts) {
    auto words = counted_words(bytes, offsets, counts);
    uint64_t symbols = 0;
    for (size_t i = 0; i < words.size(); ++i) {
        const auto count = static_cast<uint64_t>(words[i].count);
        if (words[i].size > ((uint64_t{1} << 62) - 1 - symbols) / count)
            throw std::length_error("the counts add up to 2^62 bytes or more");
        symbols += words[i].size * count;
        if (i == 0) continue;
        const auto &a = words[i - 1], &b = words[i];
        const int order = std::memcmp(a.data, b.data, std::min(a.size, b.size));
        if (order > 0 || (order == 0 && a.size >= b.size))
            throw std::invalid_argument("word " + std::to_string(i) + " is out of order");
    }
    return words;
}

nb::tuple sorted_words(const dataforge::WordCounts& counts) {
    std::vector<uint8_t> bytes;
    std::vector<int64_t> offsets{0}, numbers;
    {
        nb::gil_scoped_release release;
        for (const auto& word : counts.sorted()) {
            bytes.insert(bytes.end(), word.data, word.data + word.size);
            offsets.push_back(static_cast<int64_t>(bytes.size()));
            numbers.push_back(word.count);
        }
    }
    return nb::make_tuple(array_of(std::move(bytes)), array_of(std::move(offsets)), array_of(std::move(numbers)));
}

nb::tuple train_merges(Bytes bytes, Int64s offsets, Int64s counts, size_t vocab_size, size_t num_special_tokens,
                       bool scaffold) {
    dataforge::TrainedMerges trained;
    {
        nb::gil_scoped_release release;
        const auto words = words_in_order(bytes, offsets, counts);
        trained = dataforge::train_merges(words, vocab_size, num_special_tokens, scaffold);
    }
    std::vector<int64_t> events;
    for (const auto& event : trained.events)
        events.insert(events.end(), {event.kind, event.first, event.second, event.frequency});
    return nb::make_tuple(array_of(std::move(trained.left)), array_of(std::move(trained.right)),
                          array_of(std::move(trained.is_scaffold)), array_of(std::move(trained.frequency)),
                          array_of(std::move(events)), trained.ran_dry);
}

std::vector<std::string> strings_of(nb::list tokens) {
    std::vector<std::string> strings;
    strings.reserve(tokens.size());
    for (nb::handle token : tokens) {
        const auto bytes = nb::cast<nb::bytes>(token);
        strings.emplace_back(bytes.c_str(), bytes.size());
    }
    return strings;
}

// Two encoders in one Python class: ids of two bytes where the vocabulary allows it.
struct AnyEncoder {
    std::unique_ptr<const dataforge::Encoder<uint16_t>> narrow;
    std::unique_ptr<const dataforge::Encoder<uint32_t>> wide;

    AnyEncoder(nb::list tokens, Bytes in_text, Uint32s byte_ids, Int32Rows merges, uint32_t num_model_ids,
               bool whole_words_first, const std::string& pattern, const std::string& kind) {
        dataforge::VocabularyTables tables;
        tables.tokens = strings_of(tokens);
        const size_t num = tables.tokens.size();
        if (in_text.shape(0) != num || num_model_ids > num || byte_ids.shape(0) != 256 || merges.shape(1) != 3)
            throw std::invalid_argument("the vocabulary's tables differ in size");
        tables.in_text.assign(in_text.data(), in_text.data() + num);
        tables.num_model_ids = num_model_ids;
        tables.whole_words_first = whole_words_first;
        for (size_t byte = 0; byte < 256; ++byte) {
            const uint32_t id = byte_ids.data()[byte];
            if (id >= num_model_ids || !tables.in_text[id] || tables.tokens[id] != std::string(1, static_cast<char>(byte)))
                throw std::invalid_argument("byte " + std::to_string(byte) + " has no token");
            tables.byte_ids[byte] = id;
        }
        for (size_t i = 0; i < num; ++i)
            if (tables.in_text[i] && tables.tokens[i].empty()) throw std::invalid_argument("a token is empty");
        for (size_t i = 0; i < merges.shape(0); ++i) {
            const int32_t* row = merges.data() + 3 * i;
            for (int k = 0; k < 3; ++k)
                if (row[k] < 0 || static_cast<size_t>(row[k]) >= num) throw std::invalid_argument("a merge is out of range");
            tables.merges.push_back({static_cast<uint32_t>(row[0]), static_cast<uint32_t>(row[1]),
                                     static_cast<uint32_t>(row[2])});
        }
        const auto split = dataforge::pattern_named(pattern);
        const auto how = kind == "lbpe" ? dataforge::EncoderKind::kLbpe : dataforge::EncoderKind::kBpe;
        nb::gil_scoped_release release;
        if (num_model_ids <= 65536)
            narrow = std::make_unique<const dataforge::Encoder<uint16_t>>(tables, split, how);
        else
            wide = std::make_unique<const dataforge::Encoder<uint32_t>>(tables, split, how);
    }

    template <typename Id>
    static nb::tuple run(const dataforge::Encoder<Id>& encoder, const TextBatch& texts, size_t num_threads) {
        dataforge::Encoded<Id> encoded;
        {
            nb::gil_scoped_release release;
            encoded = encoder.encode(texts.views, num_threads);
        }
        return nb::make_tuple(array_of(std::move(encoded.ids)), array_of(std::move(encoded.offsets)));
    }

    nb::tuple encode(const TextBatch& texts, size_t num_threads) const {
        return narrow ? run(*narrow, texts, num_threads) : run(*wide, texts, num_threads);
    }
};

// The merges that text can reach, as rows (left, right, id) in order of rank. `pairs` lists the allowed ones in order of
// rank; without it any pair that spells a token is allowed and ranks as that token's id, which is tiktoken's rule.
nb::object reachable_merges(nb::list tokens, Uint32s byte_ids, std::optional<Int32Rows> pairs) {
    const auto spellings = strings_of(tokens);
    if (byte_ids.shape(0) != 256 || (pairs && pairs->shape(1) != 2)) throw std::invalid_argument("the tables differ in size");
    std::vector<int32_t> rows;
    {
        nb::gil_scoped_release release;
        std::unordered_map<uint64_t, uint32_t> rank;
        for (size_t i = 0; pairs && i < pairs->shape(0); ++i) {
            const auto left = static_cast<uint32_t>(pairs->data()[2 * i]), right = static_cast<uint32_t>(pairs->data()[2 * i + 1]);
            rank.emplace(static_cast<uint64_t>(left) << 32 | right, static_cast<uint32_t>(i));
        }
        const auto rank_of = [&](uint32_t left, uint32_t right, uint32_t id) -> uint32_t {
            if (!pairs) return id;
            const auto found = rank.find(static_cast<uint64_t>(left) << 32 | right);
            return found == rank.end() ? dataforge::MergeTable::kNone : found->second;
        };
        const size_t num_ranks = pairs ? pairs->shape(0) : spellings.size();
        for (const auto& [left, right, id] : dataforge::reachable_merges(spellings, byte_ids.data(), num_ranks, rank_of))
            for (const uint32_t each : {left, right, id}) rows.push_back(static_cast<int32_t>(each));
    }
    return array_of(std::move(rows));
}

nb::bytes join_tokens(Bytes bytes, Int64s offsets, Uint32s ids) {
    size_t size = 0;
    for (size_t i = 0; i < ids.shape(0); ++i) {
        const uint64_t id = ids.data()[i];
        if (id + 1 >= offsets.shape(0)) throw std::out_of_range("id " + std::to_string(id) + " is out of range");
        const int64_t first = offsets.data()[id], last = offsets.data()[id + 1];
        if (first < 0 || last < first || static_cast<uint64_t>(last) > bytes.shape(0))
            throw std::invalid_argument("the offsets are out of order");
        size += static_cast<size_t>(last - first);
    }
    PyObject* joined = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (!joined) throw nb::python_error();
    char* out = PyBytes_AS_STRING(joined);
    {
        nb::gil_scoped_release release;
        for (size_t i = 0; i < ids.shape(0); ++i) {
            const uint32_t id = ids.data()[i];
            const auto length = static_cast<size_t>(offsets.data()[id + 1] - offsets.data()[id]);
            std::memcpy(out, bytes.data() + offsets.data()[id], length);
            out += length;
        }
    }
    return nb::steal<nb::bytes>(joined);
}

void bind_tokenizers(nb::module_& m) {
    nb::class_<TextBatch>(m, "TextBatch", "Texts that native code reads where they lie.")
        .def(nb::init<>())
        .def("add_sequence", &TextBatch::add_sequence, nb::arg("texts"), "Adds a list or tuple of str and bytes.")
        .def("add_arrow", &TextBatch::add_arrow<int32_t>, nb::arg("offsets").noconvert(), nb::arg("data").noconvert(),
             "Adds an Arrow array by its offsets and bytes.")
        .def("add_arrow", &TextBatch::add_arrow<int64_t>, nb::arg("offsets").noconvert(), nb::arg("data").noconvert())
        .def("__len__", [](const TextBatch& batch) { return batch.views.size(); })
        .def("num_bytes", [](const TextBatch& batch) {
            nb::gil_scoped_release release;
            std::vector<uint8_t> scratch;
            size_t total = 0;
            for (const auto& view : batch.views) total += dataforge::utf8_bytes(view, scratch).size();
            return total;
        }, "Bytes of all texts in UTF-8.");

    m.def("split", [](const TextBatch& texts, const std::string& pattern_name) {
        const auto pattern = dataforge::pattern_named(pattern_name);
        std::vector<int64_t> ends;
        {
            nb::gil_scoped_release release;
            std::vector<uint8_t> scratch;
            int64_t end = 0;
            for (const auto& view : texts.views) {
                const auto text = dataforge::utf8_bytes(view, scratch);
                dataforge::for_each_pretoken(pattern, text.begin, text.end, [&](const uint8_t* p, const uint8_t* q) {
                    ends.push_back(end += q - p);
                });
            }
        }
        return array_of(std::move(ends));
    }, nb::arg("texts"), nb::arg("pattern"), "Ends of the pre-tokens in the texts' bytes, one text behind the other.");

    m.def("character_classes", [](Bytes text) {
        std::vector<uint8_t> classes;
        for (const uint8_t *p = text.data(), *end = p + text.shape(0); p < end;) {
            const dataforge::Char c = dataforge::char_at(p, end);
            classes.push_back(c.klass);
            p += c.num_bytes;
        }
        return array_of(std::move(classes));
    }, nb::arg("text"), "The class of each character, as make_unicode_tables.py numbers them.");

    nb::class_<dataforge::WordCounts>(m, "WordCounts", "How often each pre-token occurs.")
        .def(nb::init<>())
        .def("add", [](dataforge::WordCounts& counts, const TextBatch& texts, const std::string& pattern_name, size_t threads) {
            const auto pattern = dataforge::pattern_named(pattern_name);
            nb::gil_scoped_release release;
            dataforge::count_words(texts.views, pattern, threads, counts);
        }, nb::arg("texts"), nb::arg("pattern"), nb::arg("num_threads"), "Splits the texts and counts their pre-tokens.")
        .def("add_counts", [](dataforge::WordCounts& into, Bytes bytes, Int64s offsets, Int64s counts) {
            nb::gil_scoped_release release;
            const uint8_t* readable = bytes.data() + bytes.shape(0);
            for (const auto& word : counted_words(bytes, offsets, counts)) into.add(word.data, word.size, word.count, readable);
        }, nb::arg("bytes"), nb::arg("offsets"), nb::arg("counts"), "Adds words with their counts.")
        .def("__len__", &dataforge::WordCounts::size)
        .def("sorted", &sorted_words, "All words in order of their bytes: bytes, offsets [n + 1], counts [n].");

    m.def("check_words", [](Bytes bytes, Int64s offsets, Int64s counts) {
        nb::gil_scoped_release release;
        words_in_order(bytes, offsets, counts);
    }, nb::arg("bytes"), nb::arg("offsets"), nb::arg("counts"), "Raises ValueError unless words can be trained on.");
    m.def("train_merges", &train_merges, nb::arg("bytes"), nb::arg("offsets"), nb::arg("counts"), nb::arg("vocab_size"),
          nb::arg("num_special_tokens"), nb::arg("scaffold"),
          "Left and right child of each merge, scaffold flag and frequency of each id, events [4 n], whether it ran dry.");

    nb::class_<AnyEncoder>(m, "Encoder", "A vocabulary with a way to segment: texts to ids.")
        .def(nb::init<nb::list, Bytes, Uint32s, Int32Rows, uint32_t, bool, const std::string&, const std::string&>(),
             nb::arg("tokens"), nb::arg("in_text"), nb::arg("byte_ids"), nb::arg("merges"), nb::arg("num_model_ids"),
             nb::arg("whole_words_first"), nb::arg("pattern"), nb::arg("kind"))
        .def("encode", &AnyEncoder::encode, nb::arg("texts"), nb::arg("num_threads"),
             "Ids of all texts, uint16 or uint32, and their offsets [n + 1].");

    m.def("reachable_merges", &reachable_merges, nb::arg("tokens"), nb::arg("byte_ids"), nb::arg("pairs") = nb::none(),
          "The merges that text can reach, (left, right, id) one behind the other, in order of rank.");
    m.def("join_tokens", &join_tokens, nb::arg("bytes"), nb::arg("offsets"), nb::arg("ids"), "The bytes of the ids' tokens.");
}

}  // namespace

// ---- the module --------------------------------------------------------------------------------------------------

NB_MODULE(_native, m) {
    m.doc() = "dataforge's CPU code in C++";
    bind_shards(m);
    bind_tokenizers(m);
}
