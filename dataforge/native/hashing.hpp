// Keys and hashes of short byte strings, shared by the word counts and the encoder's cache. Free of Python.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace dataforge {

static_assert(std::endian::native == std::endian::little, "keys are built from bytes in memory order");

// A word of 1 to 15 bytes as two integers: its bytes, zero-padded, and its size in the last byte. Never all zero.
struct ShortKey {
    static constexpr size_t kMostBytes = 15;
    uint64_t low, high;
};

namespace hashing_detail {
struct LowBytes {
    uint64_t low[16], high[16];
    constexpr LowBytes() : low{}, high{} {
        for (int n = 0; n < 16; ++n) {
            low[n] = n >= 8 ? ~0ull : (1ull << 8 * n) - 1;
            high[n] = n <= 8 ? 0 : (1ull << 8 * (n - 8)) - 1;
        }
    }
};
inline constexpr LowBytes kLowBytes{};
}  // namespace hashing_detail

// Sixteen bytes are read where `readable` allows, so that the common case has no loop.
inline ShortKey short_key(const uint8_t* word, size_t size, const uint8_t* readable) {
    uint64_t part[2];
    if (readable - word >= 16) [[likely]] {
        std::memcpy(part, word, 16);
        part[0] &= hashing_detail::kLowBytes.low[size];
        part[1] &= hashing_detail::kLowBytes.high[size];
    } else {
        part[0] = part[1] = 0;
        std::memcpy(part, word, size);
    }
    return {part[0], part[1] | static_cast<uint64_t>(size) << 56};
}

inline uint64_t mix(uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
#else
    a ^= b + 0x9E3779B97F4A7C15ull + (a << 6) + (a >> 2);
    a *= 0xFF51AFD7ED558CCDull;
    a ^= a >> 32;
    a *= 0xC4CEB9FE1A85EC53ull;
    return a ^ a >> 29;
#endif
}

inline uint64_t hash_of(const ShortKey& key) {
    return mix(key.low ^ 0x9E3779B97F4A7C15ull, key.high ^ 0xD6E8FEB86659FD93ull);
}

// Of any bytes. Not for untrusted tables that must resist chosen collisions beyond what open addressing bears.
inline uint64_t hash_of(const uint8_t* data, size_t size) {
    uint64_t h = 0x2545F4914F6CDD1Dull ^ size;
    while (size >= 8) {
        uint64_t part;
        std::memcpy(&part, data, 8);
        h = mix(h ^ part, 0x9E3779B97F4A7C15ull);
        data += 8;
        size -= 8;
    }
    uint64_t part = 0;
    std::memcpy(&part, data, size);
    return mix(h ^ part, 0xD6E8FEB86659FD93ull);
}

inline size_t power_of_two_at_least(size_t n) {
    size_t p = 1;
    while (p < n) p *= 2;
    return p;
}

}  // namespace dataforge
