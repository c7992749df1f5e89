#include "encoder.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>

namespace dataforge {

template <typename Id>
struct Encoder<Id>::Worker {
    WordCache<Id> cache;
    Scratch scratch;
    std::vector<uint8_t> text;
    std::vector<uint32_t> ids;    // of the word that is being segmented
};

template <typename Id>
Encoder<Id>::Encoder(const VocabularyTables& vocabulary, Pattern pattern, EncoderKind kind) : pattern_(pattern) {
    if (kind == EncoderKind::kBpe)
        segmenter_ = std::make_unique<RankSegmenter>(vocabulary);
    else
        segmenter_ = std::make_unique<LongestFirstSegmenter>(vocabulary);
}

template <typename Id>
Encoder<Id>::~Encoder() = default;

template <typename Id>
std::unique_ptr<typename Encoder<Id>::Worker> Encoder<Id>::borrow() const {
    {
        const std::lock_guard lock(guard_);
        if (!idle_.empty()) {
            auto worker = std::move(idle_.back());
            idle_.pop_back();
            return worker;
        }
    }
    return std::make_unique<Worker>();
}

template <typename Id>
void Encoder<Id>::give_back(std::unique_ptr<Worker> worker) const {
    if (worker->text.capacity() > size_t{1} << 24) std::vector<uint8_t>().swap(worker->text);
    const std::lock_guard lock(guard_);
    idle_.push_back(std::move(worker));
}

// A word that is long or new: from the cache's map, or segmented and kept. `look` says whether the map may have it.
template <typename Id>
void Encoder<Id>::encode_rarer(Worker& worker, ByteSpan word, const ShortKey& key, uint64_t hash, bool look,
                               Buffer<Id>& ids) const {
    using Cache = WordCache<Id>;
    const size_t size = word.size();
    if (size >= UINT32_MAX) throw std::length_error("a pre-token of 4 GiB or more");
    const auto append = [&](const uint8_t* from, size_t num) {    // uint32, not aligned
        ids.reserve_more(num);
        for (size_t i = 0; i < num; ++i) {
            uint32_t id;
            std::memcpy(&id, from + i * sizeof(id), sizeof(id));
            ids.end()[i] = static_cast<Id>(id);
        }
        ids.set_size(ids.size() + num);
    };
    if (look && size <= Cache::kLongestWord) {
        const auto kept = worker.cache.find_long(word.begin, size, hash);
        if (kept.ids) return append(kept.ids, kept.num);
    }
    worker.ids.resize(std::max(worker.ids.size(), size));
    const size_t num = segmenter_->segment(word.begin, size, worker.scratch, worker.ids.data());
    append(reinterpret_cast<const uint8_t*>(worker.ids.data()), num);
    if (size > size_t{1} << 20) std::vector<uint32_t>().swap(worker.ids);
    if (size > Cache::kLongestWord) return;
    const bool is_short = size <= ShortKey::kMostBytes, fits = num <= Cache::kInline;
    if (!is_short || !fits) worker.cache.insert_long(word.begin, size, hash, worker.ids.data(), num);
    if (is_short && !(look && !fits)) worker.cache.insert(key, hash, worker.ids.data(), fits ? num : Cache::kInMap);
}

// Windows of pre-tokens in two passes: the first splits, makes the keys and asks for the cache lines; the second finds them
// arrived. Without that, most of the time would go into waiting for memory.
template <typename Id>
template <Pattern pattern>
void Encoder<Id>::encode_bytes(Worker& worker, ByteSpan text, Buffer<Id>& ids) const {
    using Cache = WordCache<Id>;
    constexpr size_t kWindow = 64;
    struct Word {
        ByteSpan bytes;
        ShortKey key;
        uint64_t hash;
    };
    Word words[kWindow];
    for (const uint8_t* at = text.begin; at < text.end;) {
        size_t num = 0;
        do {
            Word& word = words[num++];
            const uint8_t* after = next_pretoken<pattern>(at, text.end);
            word.bytes = {at, after};
            const size_t size = word.bytes.size();
            if (size <= ShortKey::kMostBytes) [[likely]] {
                word.key = short_key(at, size, text.end);
                word.hash = hash_of(word.key);
                worker.cache.prefetch(word.hash);
            } else {
                word.key = {0, 0};
                word.hash = size <= Cache::kLongestWord ? hash_of(at, size) : 0;
            }
            at = after;
        } while (num < kWindow && at < text.end);
        for (size_t i = 0; i < num; ++i) {
            const Word& word = words[i];
            bool look = true;
            if (word.key.high != 0) [[likely]] {
                const auto* found = worker.cache.find(word.key, word.hash);
                look = found != nullptr;
                if (found && found->num != Cache::kInMap) [[likely]] {
                    ids.reserve_more(Cache::kInline);
                    std::memcpy(ids.end(), found->ids, sizeof(found->ids));    // all that fit; `num` says how many count
                    ids.set_size(ids.size() + found->num);
                    continue;
                }
            }
            encode_rarer(worker, word.bytes, word.key, word.hash, look, ids);
        }
    }
}

template <typename Id>
void Encoder<Id>::encode_texts(Worker& worker, const TextView* texts, size_t num, Buffer<Id>& ids,
                               int64_t* lengths) const {
    for (size_t i = 0; i < num; ++i) {
        const size_t before = ids.size();
        const ByteSpan text = utf8_bytes(texts[i], worker.text);
        switch (pattern_) {
            case Pattern::kGpt2: encode_bytes<Pattern::kGpt2>(worker, text, ids); break;
            case Pattern::kCl100k: encode_bytes<Pattern::kCl100k>(worker, text, ids); break;
            case Pattern::kLlama3: encode_bytes<Pattern::kLlama3>(worker, text, ids); break;
            case Pattern::kQwen2: encode_bytes<Pattern::kQwen2>(worker, text, ids); break;
            case Pattern::kO200k: encode_bytes<Pattern::kO200k>(worker, text, ids); break;
            case Pattern::kWhole: encode_bytes<Pattern::kWhole>(worker, text, ids); break;
        }
        lengths[i] = static_cast<int64_t>(ids.size() - before);
    }
}

template <typename Id>
Encoded<Id> Encoder<Id>::encode(const std::vector<TextView>& texts, size_t num_threads) const {
    Encoded<Id> all;
    all.offsets.assign(texts.size() + 1, 0);
    int64_t* lengths = all.offsets.data() + 1;
    // Stretches of neighbouring texts, each of some size, handed out in order.
    constexpr size_t kStretchBytes = 1 << 17;
    std::vector<size_t> stretches{0};
    for (size_t i = 0, bytes = 0; i < texts.size(); ++i) {
        bytes += texts[i].length;
        if (bytes < kStretchBytes && i + 1 < texts.size()) continue;
        stretches.push_back(i + 1);
        bytes = 0;
    }
    const size_t num_stretches = stretches.size() - 1;
    num_threads = std::clamp<size_t>(num_threads, 1, std::max<size_t>(num_stretches, 1));
    if (num_threads == 1) {
        auto worker = borrow();
        encode_texts(*worker, texts.data(), texts.size(), all.ids, lengths);
        give_back(std::move(worker));
    } else {
        std::vector<Buffer<Id>> parts(num_stretches);
        std::atomic<size_t> next{0};
        run_on_threads(num_threads, [&](size_t) {
            auto worker = borrow();
            for (size_t s; (s = next.fetch_add(1)) < num_stretches;)
                encode_texts(*worker, texts.data() + stretches[s], stretches[s + 1] - stretches[s], parts[s],
                             lengths + stretches[s]);
            give_back(std::move(worker));
        });
        std::vector<size_t> starts(num_stretches + 1, 0);
        for (size_t s = 0; s < num_stretches; ++s) starts[s + 1] = starts[s] + parts[s].size();
        all.ids.reserve_more(starts[num_stretches]);
        all.ids.set_size(starts[num_stretches]);
        next = 0;
        run_on_threads(num_threads, [&](size_t) {
            for (size_t s; (s = next.fetch_add(1)) < num_stretches;) {
                if (parts[s].size() > 0) std::memcpy(all.ids.data() + starts[s], parts[s].data(), parts[s].size() * sizeof(Id));
                parts[s] = Buffer<Id>();
            }
        });
    }
    for (size_t i = 0; i < texts.size(); ++i) all.offsets[i + 1] += all.offsets[i];
    return all;
}

template class Encoder<uint16_t>;
template class Encoder<uint32_t>;

}  // namespace dataforge
