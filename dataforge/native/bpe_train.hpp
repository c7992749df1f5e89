// Byte-level BPE and Scaffold-BPE training on counted words. Free of Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "word_counts.hpp"

namespace dataforge {

struct TrainingEvent {
    enum Kind : int64_t { kReturn = 0, kMerge = 1, kFlag = 2 };
    int64_t kind;
    int64_t first;        // the token, or the left child
    int64_t second;       // the right child, or -1
    int64_t frequency;    // of the pair or token at that moment
};

// Ids are places in E: 0..255 the bytes, then the special tokens, then the merges in order of creation.
struct TrainedMerges {
    std::vector<int32_t> left, right;       // children of merge i, whose id is num_pinned + i
    std::vector<uint8_t> is_scaffold;       // for each id
    std::vector<int64_t> frequency;         // occurrences of each id in the words as segmented at the end
    std::vector<TrainingEvent> events;
    bool ran_dry;                           // no pair was left before `vocab_size` was reached
};

// Trains until there are `vocab_size` tokens that are not scaffolds (all of them are not, unless `scaffold`).
//
// Words must be in ascending order of bytes, without repeats and with positive counts, the sum of count x size below
// 2^62; then the result depends on words and counts alone. Throws std::length_error past 2^32 - 2 symbols.
TrainedMerges train_merges(const std::vector<CountedWord>& words, size_t vocab_size, size_t num_special_tokens,
                           bool scaffold);

}  // namespace dataforge
