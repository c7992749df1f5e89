// One pre-token to token ids, without any cache: by rank (BPE, with the demolition of Scaffold-BPE) or longest first (LBPE).
// Free of Python. Tables are immutable and shared by all threads; what a call needs to write is in its Scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "merge_table.hpp"

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
    std::vector<uint32_t> a, b, c, d, numbers;
    std::vector<uint64_t> heap;
    void shrink();                               // gives back what an unusually long word needed
};

class Segmenter {
public:
    virtual ~Segmenter() = default;
    // Writes the ids of a word of at least one byte to `out`, which has room for one id a byte; returns how many.
    virtual size_t segment(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const = 0;
};

inline constexpr size_t kShortWord = 64;    // bytes up to which arrays on the stack and looking at all of them are best

// Merges by rank over all of E, leftmost first among equals; then each scaffold gives way to its parts, recursively.
class RankSegmenter final : public Segmenter {
public:
    explicit RankSegmenter(const VocabularyTables& vocabulary);
    size_t segment(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const override;

private:
    static constexpr uint32_t kScaffold = ~0u;

    MergeTable merges_;
    std::vector<uint32_t> ids_;                   // of each number, or kScaffold
    std::vector<uint32_t> part_offsets_, parts_;  // of each number: the model's ids that a scaffold gives way to
    std::unordered_map<std::string, uint32_t> whole_words_;
};

// For each token the one merge that can make it from text, if any; those merges in order of rank.
//
// A merge is a rule about two neighbours, so inside the bytes of a token nothing but shorter merges can have happened
// before its own: what those leave of the token's bytes, if it is two parts, is the pair. `rank_of(left, right, id)`
// gives the rank of that pair, below num_ranks, or kNone where it is not allowed; no two tokens share a rank.
std::vector<VocabularyTables::Merge> reachable_merges(
    const std::vector<std::string>& tokens, const uint32_t* byte_ids, size_t num_ranks,
    const std::function<uint32_t(uint32_t left, uint32_t right, uint32_t id)>& rank_of);

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
    static constexpr int kNodeBits = 28;          // a node's place; an edge packs node, byte and node in 64 bits
    static constexpr uint64_t kNoEdge = ~0ull;
    struct Node {
        uint64_t next_bytes = 0;                 // bit (byte mod 64) of each byte that an edge leads on by
        uint32_t fail = 0;                       // the node of the longest proper suffix
        uint32_t best = ~0u;                     // the longest token that ends here
        uint32_t best_size = 0;
    };
    uint32_t child(uint32_t node, uint8_t byte) const;
    uint32_t step(uint32_t node, uint8_t byte) const;
    uint32_t step_after(uint32_t node, uint8_t previous, uint8_t byte) const;
    void build(const VocabularyTables& vocabulary, const std::vector<uint32_t>& ids);
    size_t short_word(const uint8_t* word, size_t size, uint32_t* out) const;
    size_t long_word(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const;

    std::vector<Node> nodes_;                    // by depth
    std::vector<uint64_t> edges_;                // open addressing
    int bits_ = 4;
    uint32_t root_[256] = {};                    // the root's children
    std::vector<uint32_t> after_byte_;           // from each child of the root, by both bytes: where each byte leads
    std::vector<uint32_t> size_;                 // of each token
    std::vector<uint32_t> prefix_;               // token -> its longest proper prefix that is a token
};

}  // namespace dataforge
