// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), the checksum of shards, row indexes and frames.
//
// Two paths with equal results: tables, eight bytes a step, on every machine; and SSE4.2's crc32 instruction where the
// processor has it, asked at run time. The instruction has a latency of three cycles and a throughput of one, so three
// stretches of the buffer run interleaved and are joined by "append n zero bytes", a linear map kept as four tables.
// Method of the joined stretches: Mark Adler, crc32c.c (2013).  Free of Python.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define DATAFORGE_CRC32C_SSE42 1
#include <nmmintrin.h>
#else
#define DATAFORGE_CRC32C_SSE42 0
#endif

namespace dataforge {

namespace crc32c_detail {

inline constexpr uint32_t kPolynomial = 0x82f63b78u;

using ByteTables = std::array<std::array<uint32_t, 256>, 8>;

constexpr ByteTables make_byte_tables() {
    ByteTables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? kPolynomial : 0u);
        tables[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; ++byte)
        for (size_t k = 1; k < 8; ++k)
            tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xffu];
    return tables;
}

inline constexpr ByteTables kByteTables = make_byte_tables();

// The register of a CRC is a vector over GF(2); appending zero bytes is a 32 x 32 matrix, column i = image of bit i.
using Matrix = std::array<uint32_t, 32>;

constexpr uint32_t times(const Matrix& matrix, uint32_t vector) {
    uint32_t sum = 0;
    for (size_t i = 0; vector != 0; vector >>= 1, ++i)
        if (vector & 1u) sum ^= matrix[i];
    return sum;
}

constexpr Matrix zeros_matrix(uint64_t num_bytes) {
    Matrix power{}, result{};
    for (size_t i = 0; i < 32; ++i) {
        result[i] = 1u << i;
        const uint32_t bit = 1u << i;
        power[i] = (bit >> 8) ^ kByteTables[0][bit & 0xffu];  // one zero byte
    }
    for (; num_bytes != 0; num_bytes >>= 1) {
        if (num_bytes & 1u) {
            Matrix next{};
            for (size_t i = 0; i < 32; ++i) next[i] = times(power, result[i]);
            result = next;
        }
        Matrix square{};
        for (size_t i = 0; i < 32; ++i) square[i] = times(power, power[i]);
        power = square;
    }
    return result;
}

struct ZerosTables {  // zeros_matrix as four look-ups
    std::array<std::array<uint32_t, 256>, 4> at{};
    explicit ZerosTables(uint64_t num_bytes) {
        const Matrix matrix = zeros_matrix(num_bytes);
        for (uint32_t byte = 0; byte < 256; ++byte)
            for (size_t k = 0; k < 4; ++k) at[k][byte] = times(matrix, byte << (8 * k));
    }
    uint32_t operator()(uint32_t crc) const {
        return at[0][crc & 0xffu] ^ at[1][(crc >> 8) & 0xffu] ^ at[2][(crc >> 16) & 0xffu] ^ at[3][crc >> 24];
    }
};

}  // namespace crc32c_detail

// The plain path. `crc` is the checksum of the bytes before, so a buffer may be checked in pieces.
inline uint32_t crc32c_table(const void* data, size_t size, uint32_t crc = 0) {
    const auto& tables = crc32c_detail::kByteTables;
    const auto* next = static_cast<const uint8_t*>(data);
    crc = ~crc;
    if constexpr (std::endian::native == std::endian::little) {
        for (; size >= 8; size -= 8, next += 8) {
            uint64_t word;
            std::memcpy(&word, next, 8);
            word ^= crc;
            crc = tables[7][word & 0xff] ^ tables[6][(word >> 8) & 0xff] ^ tables[5][(word >> 16) & 0xff] ^
                  tables[4][(word >> 24) & 0xff] ^ tables[3][(word >> 32) & 0xff] ^ tables[2][(word >> 40) & 0xff] ^
                  tables[1][(word >> 48) & 0xff] ^ tables[0][word >> 56];
        }
    }
    for (; size != 0; --size) crc = (crc >> 8) ^ tables[0][(crc ^ *next++) & 0xffu];
    return ~crc;
}

#if DATAFORGE_CRC32C_SSE42

inline bool crc32c_has_hardware() {
    static const bool has = __builtin_cpu_supports("sse4.2");
    return has;
}

namespace crc32c_detail {

inline constexpr size_t kLong = 8192, kShort = 256;  // bytes of one of three stretches

template <size_t kStretch>
__attribute__((target("sse4.2"))) inline uint32_t three_stretches(const uint8_t* next, uint32_t crc,
                                                                  const ZerosTables& shift) {
    uint64_t first = crc, second = 0, third = 0;
    for (size_t i = 0; i < kStretch; i += 8) {
        uint64_t a, b, c;
        std::memcpy(&a, next + i, 8);
        std::memcpy(&b, next + i + kStretch, 8);
        std::memcpy(&c, next + i + 2 * kStretch, 8);
        first = _mm_crc32_u64(first, a);
        second = _mm_crc32_u64(second, b);
        third = _mm_crc32_u64(third, c);
    }
    const uint32_t joined = shift(static_cast<uint32_t>(first)) ^ static_cast<uint32_t>(second);
    return shift(joined) ^ static_cast<uint32_t>(third);
}

__attribute__((target("sse4.2"))) inline uint32_t hardware(const void* data, size_t size, uint32_t crc) {
    static const ZerosTables shift_long(kLong), shift_short(kShort);
    const auto* next = static_cast<const uint8_t*>(data);
    crc = ~crc;
    for (; size >= 3 * kLong; size -= 3 * kLong, next += 3 * kLong) crc = three_stretches<kLong>(next, crc, shift_long);
    for (; size >= 3 * kShort; size -= 3 * kShort, next += 3 * kShort)
        crc = three_stretches<kShort>(next, crc, shift_short);
    uint64_t wide = crc;
    for (; size >= 8; size -= 8, next += 8) {
        uint64_t word;
        std::memcpy(&word, next, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = static_cast<uint32_t>(wide);
    for (; size != 0; --size) crc = _mm_crc32_u8(crc, *next++);
    return ~crc;
}

}  // namespace crc32c_detail

#else

inline bool crc32c_has_hardware() { return false; }

#endif

// CRC-32C of `size` bytes, by the fastest path of this machine.
inline uint32_t crc32c(const void* data, size_t size, uint32_t crc = 0) {
#if DATAFORGE_CRC32C_SSE42
    if (crc32c_has_hardware()) return crc32c_detail::hardware(data, size, crc);
#endif
    return crc32c_table(data, size, crc);
}

}  // namespace dataforge
