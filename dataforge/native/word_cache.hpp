// The ids of words seen before: small, lossy, owned by one thread. Free of Python.
//
// A word of up to 15 bytes with few ids sits in a table of lines of two entries, 64 bytes each: one cache miss at most to
// find it. The table doubles as it fills, up to a limit, from where on a new word takes the place of an older one in its
// line. Longer words, and short ones with many ids, sit in a map beside an arena, which is emptied when full; of the
// short ones the table knows that they are there. What is looked up is always what was put in, so results never depend on
// the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "hashing.hpp"
#include "zeroed_array.hpp"

namespace dataforge {

template <typename Id>
class WordCache {
public:
    static constexpr size_t kInline = sizeof(Id) == 2 ? 7 : 3;    // ids that fit in an entry
    static constexpr size_t kLongestWord = 256;

    static constexpr Id kInMap = static_cast<Id>(~Id{0});         // in place of a number of ids: they are in the map

    struct Entry {
        ShortKey key{0, 0};
        Id num = 0;
        Id ids[kInline] = {};
    };
    static_assert(sizeof(Entry) == 32);

    // Asks for the memory that `find` will look at.
    void prefetch(uint64_t hash) const {
#if defined(__GNUC__)
        __builtin_prefetch(&lines_[hash >> shift_]);
#else
        (void)hash;
#endif
    }

    // The entry of a short word, or null.
    const Entry* find(const ShortKey& key, uint64_t hash) {
        Line& line = lines_[hash >> shift_];
        for (Entry& entry : line.entries)
            if (entry.key.low == key.low && entry.key.high == key.high) return &entry;
        return nullptr;
    }

    // Keeps a short word of at most kInline ids, or with `num` = kInMap the mark that the map has it.
    void insert(const ShortKey& key, uint64_t hash, const uint32_t* ids, size_t num) {
        if (++num_inserted_ > lines_.size() && lines_.size() < kMostLines) grow();
        Entry entry;
        entry.key = key;
        entry.num = static_cast<Id>(num);
        for (size_t i = 0; num != kInMap && i < num; ++i) entry.ids[i] = static_cast<Id>(ids[i]);
        put(entry, hash);
    }

    struct Found {
        const uint8_t* ids;    // uint32, not aligned
        size_t num;
    };

    // The ids of any word of up to kLongestWord bytes in the second map, or {null, 0}.
    Found find_long(const uint8_t* word, size_t size, uint64_t hash) const {
        if (slots_.empty()) return {nullptr, 0};
        for (size_t slot = hash & (kSlots - 1); slots_[slot].size != 0; slot = (slot + 1) & (kSlots - 1)) {
            const Slot& found = slots_[slot];
            if (found.hash != hash || found.size != size) continue;
            const uint8_t* data = arena_.data() + found.offset;
            if (std::memcmp(data, word, size) == 0) return {data + size, found.num};
        }
        return {nullptr, 0};
    }

    void insert_long(const uint8_t* word, size_t size, uint64_t hash, const uint32_t* ids, size_t num) {
        if (slots_.empty() || num_slots_used_ > kSlots / 2 || arena_.size() > kMostArena) {
            slots_.assign(kSlots, Slot{});
            arena_.clear();
            num_slots_used_ = 0;
        }
        size_t slot = hash & (kSlots - 1);
        while (slots_[slot].size != 0) slot = (slot + 1) & (kSlots - 1);
        slots_[slot] = {hash, static_cast<uint32_t>(arena_.size()), static_cast<uint16_t>(size), static_cast<uint16_t>(num)};
        ++num_slots_used_;
        const auto* id_bytes = reinterpret_cast<const uint8_t*>(ids);
        arena_.insert(arena_.end(), word, word + size);
        arena_.insert(arena_.end(), id_bytes, id_bytes + num * sizeof(uint32_t));
    }

private:
    struct alignas(64) Line {
        Entry entries[2];
    };
    static_assert(sizeof(Line) == 64);
    struct Slot {
        uint64_t hash = 0;
        uint32_t offset = 0;
        uint16_t size = 0;    // 0 when empty
        uint16_t num = 0;
    };
    static constexpr int kFirstBits = 9;                     // 32 KiB
    static constexpr size_t kMostLines = size_t{1} << 18;    // 16 MiB
    static constexpr size_t kSlots = size_t{1} << 15;
    static constexpr size_t kMostArena = size_t{4} << 20;

    void put(const Entry& entry, uint64_t hash) {
        Line& line = lines_[hash >> shift_];
        if (line.entries[0].num != 0) line.entries[1] = line.entries[0];
        line.entries[0] = entry;
    }

    void grow() {
        ZeroedArray<Line> old(lines_.size() * 2);
        old.swap(lines_);
        --shift_;
        num_inserted_ = 0;
        for (size_t n = 0; n < old.size(); ++n) {
            for (size_t i = 2; i-- > 0;) {
                const Entry& entry = old[n].entries[i];
                if (entry.num == 0) continue;
                put(entry, hash_of(entry.key));
                ++num_inserted_;
            }
        }
    }

    ZeroedArray<Line> lines_{size_t{1} << kFirstBits};
    int shift_ = 64 - kFirstBits;
    size_t num_inserted_ = 0;
    std::vector<Slot> slots_;
    std::vector<uint8_t> arena_;
    size_t num_slots_used_ = 0;
};

}  // namespace dataforge
