#include <algorithm>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "hashing.hpp"
#include "segmenter.hpp"

namespace dataforge {

void Scratch::shrink() {
    constexpr size_t kKeep = 1 << 18;
    for (std::vector<uint32_t>* each : {&a, &b, &c, &d})
        if (each->capacity() > kKeep) std::vector<uint32_t>().swap(*each);
    if (heap.capacity() > kKeep) std::vector<uint64_t>().swap(heap);
}

RankSegmenter::RankSegmenter(const uint32_t* byte_ids, size_t num_merges, uint32_t num_model_ids)
    : pairs_(power_of_two_at_least(2 * num_merges + 2)), mask_(pairs_.size() - 1), num_model_ids_(num_model_ids) {
    std::copy(byte_ids, byte_ids + 256, byte_ids_);
}

void RankSegmenter::add(uint32_t left, uint32_t right, uint32_t rank, uint32_t id) {
    const uint64_t pair = static_cast<uint64_t>(left) << 32 | right;
    size_t slot = mix(pair, 0x9E3779B97F4A7C15ull) & mask_;
    while (pairs_[slot].pair != ~0ull) slot = (slot + 1) & mask_;
    pairs_[slot] = {pair, rank, id};
}

RankSegmenter::RankSegmenter(const VocabularyTables& vocabulary)
    : RankSegmenter(vocabulary.byte_ids, vocabulary.merges.size(), vocabulary.num_model_ids) {
    // id -> its parts among the model's tokens; a merge's children come earlier in rank order.
    std::vector<std::vector<uint32_t>> parts(vocabulary.tokens.size() - num_model_ids_);
    for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
        const auto [left, right, id] = vocabulary.merges[rank];
        add(left, right, static_cast<uint32_t>(rank), id);
        if (id < num_model_ids_) continue;
        auto& own = parts[id - num_model_ids_];
        if (!own.empty()) throw std::invalid_argument("a scaffold is made by two merges");
        for (const uint32_t child : {left, right}) {
            if (child < num_model_ids_) {
                own.push_back(child);
                continue;
            }
            const auto& of_child = parts[child - num_model_ids_];
            if (of_child.empty()) throw std::invalid_argument("a scaffold is used before it is made");
            own.insert(own.end(), of_child.begin(), of_child.end());
        }
    }
    part_offsets_.push_back(0);
    for (const auto& own : parts) {
        parts_.insert(parts_.end(), own.begin(), own.end());
        part_offsets_.push_back(static_cast<uint32_t>(parts_.size()));
    }
    if (vocabulary.whole_words_first)
        for (uint32_t id = 0; id < vocabulary.tokens.size(); ++id)
            if (vocabulary.in_text[id]) whole_words_.emplace(vocabulary.tokens[id], id);
}

const RankSegmenter::Slot& RankSegmenter::look_up(uint32_t left, uint32_t right) const {
    const uint64_t pair = static_cast<uint64_t>(left) << 32 | right;
    for (size_t slot = mix(pair, 0x9E3779B97F4A7C15ull) & mask_;; slot = (slot + 1) & mask_) {
        if (pairs_[slot].pair == pair) return pairs_[slot];
        if (pairs_[slot].pair == ~0ull) return missing_;
    }
}

size_t RankSegmenter::segment(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const {
    if (!whole_words_.empty()) {
        const auto found = whole_words_.find(std::string(reinterpret_cast<const char*>(word), size));
        if (found != whole_words_.end()) {
            out[0] = found->second;
            return 1;
        }
    }
    const size_t num = size <= 64 ? short_word(word, size, out) : long_word(word, size, scratch, out);
    return part_offsets_.size() > 1 ? demolish(out, num, size) : num;
}

// A flat array with the rank of each neighbouring pair; the least is found by looking at all of them.
size_t RankSegmenter::short_word(const uint8_t* word, size_t size, uint32_t* ids) const {
    uint32_t rank[64], merged[64];    // of the pair (i, i + 1)
    for (size_t i = 0; i < size; ++i) ids[i] = byte_ids_[word[i]];
    const auto refresh = [&](size_t i) {
        const Slot& slot = look_up(ids[i], ids[i + 1]);
        rank[i] = slot.rank;
        merged[i] = slot.id;
    };
    for (size_t i = 0; i + 1 < size; ++i) refresh(i);
    size_t num = size;
    while (num > 1) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < num; ++i)
            if (rank[i] < rank[at]) at = i;
        if (rank[at] == kNoRank) break;
        ids[at] = merged[at];
        --num;
        std::memmove(ids + at + 1, ids + at + 2, (num - at - 1) * sizeof(uint32_t));
        if (at + 1 < num) {
            std::memmove(rank + at, rank + at + 1, (num - at - 1) * sizeof(uint32_t));
            std::memmove(merged + at, merged + at + 1, (num - at - 1) * sizeof(uint32_t));
            refresh(at);
        }
        if (at > 0) refresh(at - 1);
    }
    return num;
}

// A linked list over the bytes and a heap of (rank, place): n log n whatever the word.
size_t RankSegmenter::long_word(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const {
    constexpr uint32_t kEnd = ~0u;
    auto& ids = scratch.a;
    auto& next = scratch.b;
    auto& previous = scratch.c;
    auto& rank = scratch.d;    // of the pair that starts at a place; an entry of the heap with another rank is stale
    auto& heap = scratch.heap;
    ids.resize(size);
    next.resize(size);
    previous.resize(size);
    rank.assign(size, kNoRank);
    heap.clear();
    for (size_t i = 0; i < size; ++i) {
        ids[i] = byte_ids_[word[i]];
        next[i] = i + 1 < size ? static_cast<uint32_t>(i + 1) : kEnd;
        previous[i] = i > 0 ? static_cast<uint32_t>(i - 1) : kEnd;
    }
    const auto later = std::greater<uint64_t>();
    const auto entry = [&](uint32_t i) { return static_cast<uint64_t>(rank[i]) << 32 | i; };
    for (uint32_t i = 0; i + 1 < size; ++i) {
        rank[i] = look_up(ids[i], ids[i + 1]).rank;
        if (rank[i] != kNoRank) heap.push_back(entry(i));
    }
    std::make_heap(heap.begin(), heap.end(), later);
    const auto refresh = [&](uint32_t i) {
        rank[i] = next[i] == kEnd ? kNoRank : look_up(ids[i], ids[next[i]]).rank;
        if (rank[i] == kNoRank) return;
        heap.push_back(entry(i));
        std::push_heap(heap.begin(), heap.end(), later);
    };
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), later);
        const uint64_t top = heap.back();
        heap.pop_back();
        const auto i = static_cast<uint32_t>(top);
        if (rank[i] != top >> 32) continue;
        const uint32_t right = next[i];
        ids[i] = look_up(ids[i], ids[right]).id;
        rank[right] = kNoRank;
        next[i] = next[right];
        if (next[i] != kEnd) previous[next[i]] = i;
        refresh(i);
        if (previous[i] != kEnd) refresh(previous[i]);
    }
    size_t num = 0;
    for (uint32_t i = 0; i != kEnd; i = next[i]) out[num++] = ids[i];
    scratch.shrink();
    return num;
}

// From the back, so that the parts of a scaffold do not overwrite what is still to be read; `size` ids fit in `ids`.
size_t RankSegmenter::demolish(uint32_t* ids, size_t num, size_t size) const {
    size_t first_scaffold = 0;
    while (first_scaffold < num && ids[first_scaffold] < num_model_ids_) ++first_scaffold;
    if (first_scaffold == num) return num;
    size_t to = size;
    for (size_t from = num; from-- > first_scaffold;) {
        const uint32_t id = ids[from];
        if (id < num_model_ids_) {
            ids[--to] = id;
            continue;
        }
        const uint32_t first = part_offsets_[id - num_model_ids_], last = part_offsets_[id - num_model_ids_ + 1];
        to -= last - first;
        std::copy(parts_.begin() + first, parts_.begin() + last, ids + to);
    }
    const size_t moved = size - to;
    std::memmove(ids + first_scaffold, ids + to, moved * sizeof(uint32_t));
    return first_scaffold + moved;
}

}  // namespace dataforge
