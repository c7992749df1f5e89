// What Python sees of the C++ code, one function a subject. Arguments are checked here; the work runs without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>
#include <string>

#include "crc32c.hpp"
#include "gather.hpp"

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

// ---- the module --------------------------------------------------------------------------------------------------

NB_MODULE(_native, m) {
    m.doc() = "dataforge's CPU code in C++";
    bind_shards(m);
}
