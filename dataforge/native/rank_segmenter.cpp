#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "segmenter.hpp"

namespace dataforge {

void Scratch::shrink() {
    constexpr size_t kKeep = 1 << 18;
    for (std::vector<uint32_t>* each : {&a, &b, &c, &d, &numbers})
        if (each->capacity() > kKeep) std::vector<uint32_t>().swap(*each);
    if (heap.capacity() > kKeep) std::vector<uint64_t>().swap(heap);
}

namespace {

// A flat array with what each neighbouring pair merges into; the least is found by looking at all of them.
size_t merge_short_word(const MergeTable& merges, const uint8_t* word, size_t size, uint32_t* numbers) {
    uint32_t merged[kShortWord];    // of the pair (i, i + 1)
    for (size_t i = 0; i + 1 < size; ++i) {
        numbers[i] = word[i];
        merged[i] = merges.of_bytes(word[i], word[i + 1]);
    }
    numbers[size - 1] = word[size - 1];
    size_t num = size;
    while (num > 1) {
        size_t at = 0;
        uint32_t least = merged[0];
        for (size_t i = 1; i + 1 < num; ++i) {
            at = merged[i] < least ? i : at;
            least = std::min(least, merged[i]);
        }
        if (least == MergeTable::kNone) break;
        numbers[at] = least;
        --num;
        for (size_t i = at + 1; i < num; ++i) {
            numbers[i] = numbers[i + 1];
            merged[i - 1] = merged[i];
        }
        if (at + 1 < num) merged[at] = merges.find(least, numbers[at + 1]);
        if (at > 0) merged[at - 1] = merges.find(numbers[at - 1], least);
    }
    return num;
}

// A linked list over the bytes and a heap of (rank, place): n log n whatever the word.
size_t merge_long_word(const MergeTable& merges, const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) {
    constexpr uint32_t kEnd = ~0u;
    auto& numbers = scratch.a;
    auto& next = scratch.b;
    auto& previous = scratch.c;
    auto& merged = scratch.d;    // of the pair that starts at a place; an entry of the heap with another one is stale
    auto& heap = scratch.heap;
    numbers.resize(size);
    next.resize(size);
    previous.resize(size);
    merged.assign(size, MergeTable::kNone);
    heap.clear();
    const auto entry = [&](uint32_t i) { return static_cast<uint64_t>(merged[i]) << 32 | i; };
    for (uint32_t i = 0; i < size; ++i) {
        numbers[i] = word[i];
        next[i] = i + 1 < size ? i + 1 : kEnd;
        previous[i] = i > 0 ? i - 1 : kEnd;
        if (i + 1 < size) merged[i] = merges.of_bytes(word[i], word[i + 1]);
        if (merged[i] != MergeTable::kNone) heap.push_back(entry(i));
    }
    const auto later = std::greater<uint64_t>();
    std::make_heap(heap.begin(), heap.end(), later);
    const auto refresh = [&](uint32_t i) {
        merged[i] = next[i] == kEnd ? MergeTable::kNone : merges.find(numbers[i], numbers[next[i]]);
        if (merged[i] == MergeTable::kNone) return;
        heap.push_back(entry(i));
        std::push_heap(heap.begin(), heap.end(), later);
    };
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), later);
        const uint64_t top = heap.back();
        heap.pop_back();
        const auto i = static_cast<uint32_t>(top);
        if (merged[i] != top >> 32) continue;
        const uint32_t right = next[i];
        numbers[i] = merged[i];
        merged[right] = MergeTable::kNone;
        next[i] = next[right];
        if (next[i] != kEnd) previous[next[i]] = i;
        refresh(i);
        if (previous[i] != kEnd) refresh(previous[i]);
    }
    size_t num = 0;
    for (uint32_t i = 0; i != kEnd; i = next[i]) out[num++] = numbers[i];
    return num;
}

size_t merge_word(const MergeTable& merges, const uint8_t* word, size_t size, Scratch& scratch, uint32_t* numbers) {
    return size <= kShortWord ? merge_short_word(merges, word, size, numbers)
                              : merge_long_word(merges, word, size, scratch, numbers);
}

}  // namespace

RankSegmenter::RankSegmenter(const VocabularyTables& vocabulary)
    : merges_(vocabulary.merges.size(), 256 + vocabulary.merges.size()) {
    const uint32_t num_model_ids = vocabulary.num_model_ids;
    std::vector<uint32_t> number_of(vocabulary.tokens.size(), MergeTable::kNone);
    for (uint32_t byte = 0; byte < 256; ++byte) number_of[vocabulary.byte_ids[byte]] = byte;
    for (uint32_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
        uint32_t& number = number_of[vocabulary.merges[rank].id];
        if (number != MergeTable::kNone) throw std::invalid_argument("a token is made by two merges");
        number = 256 + rank;
    }
    ids_.assign(vocabulary.byte_ids, vocabulary.byte_ids + 256);
    part_offsets_.assign(257, 0);
    for (const auto& [left, right, id] : vocabulary.merges) {
        const uint32_t number = number_of[id];
        // A child without a merge of its own never comes about, and this merge never applies.
        if (number_of[left] != MergeTable::kNone && number_of[right] != MergeTable::kNone)
            merges_.add(number_of[left], number_of[right], number);
        ids_.push_back(id < num_model_ids ? id : kScaffold);
        if (id >= num_model_ids) {
            for (const uint32_t child : {number_of[left], number_of[right]}) {
                if (child >= number) throw std::invalid_argument("a scaffold is used before it is made");
                if (ids_[child] != kScaffold) {
                    parts_.push_back(ids_[child]);
                    continue;
                }
                for (uint32_t i = part_offsets_[child]; i < part_offsets_[child + 1]; ++i) parts_.push_back(parts_[i]);
            }
        }
        part_offsets_.push_back(static_cast<uint32_t>(parts_.size()));
    }
    if (vocabulary.whole_words_first)
        for (uint32_t id = 0; id < vocabulary.tokens.size(); ++id)
            if (vocabulary.in_text[id]) whole_words_.emplace(vocabulary.tokens[id], id);
}

size_t RankSegmenter::segment(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const {
    if (!whole_words_.empty()) {
        const auto found = whole_words_.find(std::string(reinterpret_cast<const char*>(word), size));
        if (found != whole_words_.end()) {
            out[0] = found->second;
            return 1;
        }
    }
    uint32_t few[kShortWord];
    uint32_t* numbers = few;
    if (size > kShortWord) {
        scratch.numbers.resize(std::max(scratch.numbers.size(), size));
        numbers = scratch.numbers.data();
    }
    const size_t num_merged = merge_word(merges_, word, size, scratch, numbers);
    size_t num = 0;
    for (size_t i = 0; i < num_merged; ++i) {
        const uint32_t number = numbers[i];
        out[num] = ids_[number];
        if (out[num] != kScaffold) [[likely]] {
            ++num;
            continue;
        }
        for (uint32_t k = part_offsets_[number]; k < part_offsets_[number + 1]; ++k) out[num++] = parts_[k];
    }
    if (size > kShortWord) scratch.shrink();
    return num;
}

std::vector<VocabularyTables::Merge> reachable_merges(
    const std::vector<std::string>& tokens, const uint32_t* byte_ids, size_t num_ranks,
    const std::function<uint32_t(uint32_t left, uint32_t right, uint32_t id)>& rank_of) {
    std::vector<uint32_t> by_size;
    size_t longest = 1;
    for (uint32_t id = 0; id < tokens.size(); ++id) {
        if (tokens[id].size() > 1) by_size.push_back(id);
        longest = std::max(longest, tokens[id].size());
    }
    std::stable_sort(by_size.begin(), by_size.end(),
                     [&](uint32_t a, uint32_t b) { return tokens[a].size() < tokens[b].size(); });
    MergeTable shorter(by_size.size(), 256 + num_ranks);
    std::vector<uint32_t> id_of(256 + num_ranks, MergeTable::kNone), parts(longest);
    std::copy(byte_ids, byte_ids + 256, id_of.begin());
    std::vector<VocabularyTables::Merge> by_rank(num_ranks, {0, 0, MergeTable::kNone});
    Scratch scratch;
    for (const uint32_t id : by_size) {
        const auto* word = reinterpret_cast<const uint8_t*>(tokens[id].data());
        if (merge_word(shorter, word, tokens[id].size(), scratch, parts.data()) != 2) continue;
        const uint32_t left = id_of[parts[0]], right = id_of[parts[1]];
        const uint32_t rank = rank_of(left, right, id);
        if (rank == MergeTable::kNone) continue;
        shorter.add(parts[0], parts[1], 256 + rank);
        id_of[256 + rank] = id;
        by_rank[rank] = {left, right, id};
    }
    std::erase_if(by_rank, [](const auto& merge) { return merge.id == MergeTable::kNone; });
    return by_rank;
}

}  // namespace dataforge
