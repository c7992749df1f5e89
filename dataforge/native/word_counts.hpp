// How often each pre-token occurs. Free of Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "hashing.hpp"
#include "splitter.hpp"
#include "text_view.hpp"

namespace dataforge {

struct CountedWord {
    const uint8_t* data;
    size_t size;
    int64_t count;
};

// An exact map from byte strings to counts: up to 15 bytes in the table itself, longer ones in an arena.
class WordCounts {
public:
    // Adds `count` to a word, which is not empty. It may be read up to `readable`, which is at least its end.
    void add(const uint8_t* word, size_t size, int64_t count, const uint8_t* readable);
    // The same for many words at once, all readable up to the same place: memory is asked for before it is needed.
    void add_all(const ByteSpan* words, size_t num, const uint8_t* readable);
    // Adds all of `other`.
    void add(const WordCounts& other);
    size_t size() const { return num_short_ + num_long_; }
    // Every word once, in ascending order of bytes. Points into this object, valid until the next add.
    std::vector<CountedWord> sorted() const;

private:
    struct Short {
        uint64_t key[2] = {0, 0};    // the bytes, zero-padded; the last byte is the size; all zero when empty
        int64_t count = 0;
    };
    struct Long {
        uint64_t hash = 0;
        uint64_t offset = 0;
        uint64_t size = 0;           // 0 when empty
        int64_t count = 0;
    };
    void add_short(const ShortKey& key, uint64_t hash, int64_t count);
    void add_long(const uint8_t* word, size_t size, int64_t count);
    void grow_short();
    void grow_long();

    std::vector<Short> short_;
    std::vector<Long> long_;
    std::vector<uint8_t> arena_;
    size_t num_short_ = 0, num_long_ = 0;
};

// Splits the texts and adds their pre-tokens to `counts`, on `num_threads` threads. The result depends on the texts alone.
void count_words(const std::vector<TextView>& texts, Pattern pattern, size_t num_threads, WordCounts& counts);

}  // namespace dataforge
