// Which two neighbours merge, and into what. Free of Python.
//
// Tokens have *numbers* here, not ids: 0..255 are the bytes, then the merges in order of rank. So the number of a merged
// token is its rank too, and an entry of the table, two members and the result, fits in eight bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "hashing.hpp"

namespace dataforge {

class MergeTable {
public:
    static constexpr uint32_t kNone = ~0u;
    static constexpr uint32_t kMostNumbers = 1u << 21;

    // Room for `num_merges`, whose numbers are below `num_numbers`.
    MergeTable(size_t num_merges, size_t num_numbers) : bytes_(1 << 16, kNone) {
        if (num_numbers > kMostNumbers) throw std::length_error("more merges than a vocabulary may have");
        while (size_t{1} << bits_ < 3 * num_merges + 2) ++bits_;
        slots_.assign(size_t{1} << bits_, kEmpty);
    }

    void add(uint32_t left, uint32_t right, uint32_t merged) {
        if (left < 256 && right < 256) {
            bytes_[left << 8 | right] = merged;
            return;
        }
        const uint64_t key = key_of(left, right);
        size_t slot = place(key);
        while (slots_[slot] != kEmpty) slot = (slot + 1) & mask();
        slots_[slot] = key << 21 | merged;
    }

    // The number that two neighbours merge into, or kNone.
    uint32_t find(uint32_t left, uint32_t right) const {
        if ((left | right) < 256) return of_bytes(left, right);
        const uint64_t key = key_of(left, right);
        size_t slot = place(key);
        // Two entries without a branch: whether and where a pair is found cannot be predicted.
        const uint64_t first = slots_[slot], second = slots_[(slot + 1) & mask()];
        uint32_t merged = second >> 21 == key ? second & (kMostNumbers - 1) : kNone;
        merged = first >> 21 == key ? first & (kMostNumbers - 1) : merged;
        if (merged != kNone || first == kEmpty || second == kEmpty) [[likely]] return merged;
        for (slot = (slot + 2) & mask();; slot = (slot + 1) & mask()) {
            const uint64_t found = slots_[slot];
            if (found >> 21 == key) return found & (kMostNumbers - 1);
            if (found == kEmpty) return kNone;
        }
    }

    uint32_t of_bytes(uint32_t left, uint32_t right) const { return bytes_[left << 8 | right]; }

private:
    static constexpr uint64_t kEmpty = ~0ull;    // its upper 43 bits are more than any key
    static uint64_t key_of(uint32_t left, uint32_t right) { return static_cast<uint64_t>(left) << 21 | right; }
    size_t mask() const { return slots_.size() - 1; }
    size_t place(uint64_t key) const { return key * 0x9E3779B97F4A7C15ull >> (64 - bits_); }

    std::vector<uint32_t> bytes_;    // of two bytes, directly
    std::vector<uint64_t> slots_;    // of all others, open addressing: left, right, merged, 21 bits each
    int bits_ = 4;
};

}  // namespace dataforge
