// One pre-token to token ids, without any cache: by rank (BPE, with the demolition of Scaffold-BPE) or longest first (LBPE).
// Free of Python. Tables are immutable and shared by all threads; what a call needs to write is in its Scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dataforge {

// A vocabulary as files give it. Ids below num_model_ids are the model's, those from there on are scaffolds.
struct VocabularyTables {
    std::vector<std::string> tokens;             // bytes of each id; empty where an id is not in use
    std::vector<uint8_t> in_text;                // 0 for special tokens and unused ids: never made from text
    uint32_t num_model_ids = 0;
    uint32_t byte_ids[256] = {};
    struct Merge {
        uint32_t left, right, id;
    };
    std::vector<Merge> merges;                   // in order of rank
    bool whole_words_first = false;              // a pre-token that is a token is that token, merges or not
};

struct Scratch {
    std::vector<uint32_t> a, b, c, d;
    std::vector<uint64_t> heap;
    void shrink();                               // gives back what an unusually long word needed
};

class Segmenter {
public:
    virtual ~Segmenter() = default;
    // Writes the ids of a word of at least one byte to `out`, which has room for one id a byte; returns how many.
    virtual size_t segment(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const = 0;
};

struct RankedMerge {
    uint32_t left, right, id, rank;
};

// Merges by rank over all of E, leftmost first among equals; then each scaffold gives way to its parts, recursively.
class RankSegmenter final : public Segmenter {
public:
    explicit RankSegmenter(const VocabularyTables& vocabulary);
    size_t segment(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const override;

    // For tokens given in ascending length: the one merge that can make each from text, if any. A merge is a rule about two
    // neighbours, so inside the bytes of a token nothing but shorter merges can have happened before its own: what those
    // leave of the token's bytes, if it is two parts, is the pair. `rank_of(left, right, id)` gives the pair's rank, or
    // kNoRank where it is not allowed.
    template <typename RankOf>
    static std::vector<RankedMerge> reachable_merges(const std::vector<std::string>& tokens,
                                                     const std::vector<uint32_t>& ids_by_size,
                                                     const uint32_t* byte_ids, RankOf&& rank_of);
    static constexpr uint32_t kNoRank = ~0u;

private:
    struct Slot {
        uint64_t pair = ~0ull;
        uint32_t rank = ~0u;
        uint32_t id = 0;
    };
    RankSegmenter(const uint32_t* byte_ids, size_t num_merges, uint32_t num_model_ids);
    void add(uint32_t left, uint32_t right, uint32_t rank, uint32_t id);
    const Slot& look_up(uint32_t left, uint32_t right) const;
    size_t short_word(const uint8_t* word, size_t size, uint32_t* out) const;
    size_t long_word(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const;
    size_t demolish(uint32_t* ids, size_t num, size_t size) const;

    uint32_t byte_ids_[256];
    std::vector<Slot> pairs_;                    // open addressing
    size_t mask_ = 0;
    Slot missing_;
    uint32_t num_model_ids_;
    std::vector<uint32_t> part_offsets_, parts_; // of each scaffold: the model's tokens it gives way to
    std::unordered_map<std::string, uint32_t> whole_words_;
};

template <typename RankOf>
std::vector<RankedMerge> RankSegmenter::reachable_merges(const std::vector<std::string>& tokens,
                                                         const std::vector<uint32_t>& ids_by_size,
                                                         const uint32_t* byte_ids, RankOf&& rank_of) {
    RankSegmenter shorter(byte_ids, ids_by_size.size(), static_cast<uint32_t>(tokens.size()));
    std::vector<RankedMerge> merges;
    std::vector<uint32_t> parts;
    Scratch scratch;
    for (const uint32_t id : ids_by_size) {
        const std::string& token = tokens[id];
        if (token.size() < 2) continue;
        if (parts.size() < token.size()) parts.resize(token.size());
        if (shorter.segment(reinterpret_cast<const uint8_t*>(token.data()), token.size(), scratch, parts.data()) != 2) continue;
        const uint32_t rank = rank_of(parts[0], parts[1], id);
        if (rank == kNoRank) continue;
        shorter.add(parts[0], parts[1], rank, id);
        merges.push_back({parts[0], parts[1], id, rank});
    }
    return merges;
}

// The window: the longest token anywhere in the word first, the leftmost among equals, until single bytes are left.
//
// The longest token that starts at each place comes from one pass of an Aho-Corasick automaton of the reversed tokens
// over the reversed word. Places are then taken by (length descending, place ascending); one whose token no longer fits
// falls back to the longest prefix of it that does. That visits a match only where a longer one failed, so the work
// is near linear even where every substring is a token. Equal to the sweep over all lengths (tokenizers/lbpe.py).
class LongestFirstSegmenter final : public Segmenter {
public:
    explicit LongestFirstSegmenter(const VocabularyTables& vocabulary);
    size_t segment(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const override;

private:
    struct Edge {
        uint64_t key = ~0ull;                    // node << 8 | byte
        uint32_t node = 0;
    };
    uint32_t step(uint32_t node, uint8_t byte) const;
    const Edge* edge(uint32_t node, uint8_t byte) const;
    size_t short_word(const uint8_t* word, size_t size, uint32_t* out) const;
    size_t long_word(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const;

    std::vector<Edge> edges_;                    // open addressing
    size_t mask_ = 0;
    uint32_t root_[256] = {};
    std::vector<uint32_t> fail_;                 // node -> node
    std::vector<uint32_t> best_;                 // node -> the longest token that ends there
    std::vector<uint32_t> size_;                 // of each token
    std::vector<uint32_t> prefix_;               // token -> its longest proper prefix that is a token
};

}  // namespace dataforge
