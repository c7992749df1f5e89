#include <algorithm>
#include <bit>
#include <stdexcept>

#include "segmenter.hpp"

namespace dataforge {
namespace {

constexpr uint32_t kNone = ~0u;

size_t place(uint64_t key, int bits) { return key * 0x9E3779B97F4A7C15ull >> (64 - bits); }

// Places of a word in use, with the next one at or after a place found in a few steps: bits, and bits over words of bits.
class PlaceSet {
public:
    explicit PlaceSet(size_t size) {
        do {
            size = (size + 63) / 64;
            levels_.emplace_back(size, 0);
        } while (size > 1);
    }
    void insert(size_t place) {
        for (auto& level : levels_) {
            level[place / 64] |= 1ull << place % 64;
            place /= 64;
        }
    }
    // The least member at or after `place`, or `otherwise`.
    size_t next(size_t place, size_t otherwise) const {
        for (size_t up = 0; up < levels_.size(); ++up) {
            if (place / 64 >= levels_[up].size()) return otherwise;
            const uint64_t rest = levels_[up][place / 64] >> place % 64;
            if (rest == 0) {
                place = place / 64 + 1;
                continue;
            }
            place += static_cast<size_t>(std::countr_zero(rest));
            while (up-- > 0) place = place * 64 + static_cast<size_t>(std::countr_zero(levels_[up][place]));
            return place;
        }
        return otherwise;
    }

private:
    std::vector<std::vector<uint64_t>> levels_;
};

}  // namespace

LongestFirstSegmenter::LongestFirstSegmenter(const VocabularyTables& vocabulary) {
    const auto& tokens = vocabulary.tokens;
    size_.assign(tokens.size(), 0);
    prefix_.assign(tokens.size(), kNone);
    std::vector<uint32_t> ids;    // that text can become, in order of their bytes: prefixes come right before
    for (uint32_t id = 0; id < vocabulary.num_model_ids; ++id) {
        size_[id] = static_cast<uint32_t>(tokens[id].size());
        if (vocabulary.in_text[id]) ids.push_back(id);
    }
    std::sort(ids.begin(), ids.end(), [&](uint32_t a, uint32_t b) { return tokens[a] < tokens[b]; });
    std::vector<uint32_t> open;    // tokens that are prefixes of one another, the shortest first
    for (const uint32_t id : ids) {
        while (!open.empty() && !tokens[id].starts_with(tokens[open.back()])) open.pop_back();
        if (!open.empty()) prefix_[id] = open.back();
        open.push_back(id);
    }
    build(vocabulary, ids);
}

// Level by level: the tokens that share their last d bytes meet in one node of depth d. So nodes stand in order of depth,
// the ones used most together, and the fail link of a node, which is shallower, is there when it is asked for.
void LongestFirstSegmenter::build(const VocabularyTables& vocabulary, const std::vector<uint32_t>& ids) {
    const auto& tokens = vocabulary.tokens;
    const auto byte_at = [&](uint32_t id, uint32_t depth) {
        return static_cast<uint8_t>(tokens[id][tokens[id].size() - 1 - depth]);
    };
    struct Edge {
        uint32_t from;
        uint8_t byte;
    };
    std::vector<Edge> reached(1);                     // how each node is
    struct Walker {
        uint32_t node, id;
    };
    std::vector<Walker> walkers;                      // the tokens that go on, in order of their node
    for (const uint32_t id : ids) walkers.push_back({0, id});
    nodes_.resize(1);
    for (uint32_t depth = 0; !walkers.empty(); ++depth) {
        std::stable_sort(walkers.begin(), walkers.end(), [&](const Walker& a, const Walker& b) {
            return a.node != b.node ? a.node < b.node : byte_at(a.id, depth) < byte_at(b.id, depth);
        });
        std::vector<Walker> further;
        for (const auto [node, id] : walkers) {
            const uint8_t byte = byte_at(id, depth);
            const Edge& last = reached.back();
            if (nodes_.size() == 1 || last.from != node || last.byte != byte) {
                if (nodes_.size() >> kNodeBits) throw std::length_error("the tokens have too many bytes");
                nodes_[node].next_bytes |= uint64_t{1} << (byte & 63);
                if (node == 0) root_[byte] = static_cast<uint32_t>(nodes_.size());
                nodes_.emplace_back();
                reached.push_back({node, byte});
            }
            const auto made = static_cast<uint32_t>(nodes_.size() - 1);
            if (tokens[id].size() == depth + 1)
                nodes_[made].best = id;
            else
                further.push_back({made, id});
        }
        walkers.swap(further);
    }
    while (size_t{1} << bits_ < 2 * nodes_.size()) ++bits_;
    edges_.assign(size_t{1} << bits_, kNoEdge);
    for (uint32_t node = 1; node < nodes_.size(); ++node) {
        const uint64_t key = static_cast<uint64_t>(reached[node].from) << 8 | reached[node].byte;
        size_t slot = place(key, bits_);
        while (edges_[slot] != kNoEdge) slot = (slot + 1) & (edges_.size() - 1);
        edges_[slot] = key << kNodeBits | node;
    }
    for (uint32_t i = 1; i < nodes_.size(); ++i) {
        Node& node = nodes_[i];
        if (reached[i].from != 0) node.fail = step(nodes_[reached[i].from].fail, reached[i].byte);
        if (node.best == kNone) node.best = nodes_[node.fail].best;
        node.best_size = size_[node.best];
    }
    after_byte_.resize(1 << 16);
    for (uint32_t first = 0; first < 256; ++first)
        for (uint32_t second = 0; second < 256; ++second)
            after_byte_[first << 8 | second] = step(root_[first], static_cast<uint8_t>(second));
}

uint32_t LongestFirstSegmenter::child(uint32_t node, uint8_t byte) const {
    if ((nodes_[node].next_bytes >> (byte & 63) & 1) == 0) return kNone;
    const uint64_t key = static_cast<uint64_t>(node) << 8 | byte;
    for (size_t slot = place(key, bits_);; slot = (slot + 1) & (edges_.size() - 1)) {
        const uint64_t found = edges_[slot];
        if (found >> kNodeBits == key) return found & ((uint64_t{1} << kNodeBits) - 1);
        if (found == kNoEdge) return kNone;
    }
}

uint32_t LongestFirstSegmenter::step(uint32_t node, uint8_t byte) const {
    for (; node != 0; node = nodes_[node].fail) {
        const uint32_t next = child(node, byte);
        if (next != kNone) return next;
    }
    return root_[byte];
}

// The same from a node reached by `previous`. Every byte is a token, so the chain of fail links ends at that byte's node,
// from where a table leads on: words are short, and most steps are of that kind.
inline uint32_t LongestFirstSegmenter::step_after(uint32_t node, uint8_t previous, uint8_t byte) const {
    for (; node != root_[previous]; node = nodes_[node].fail) {
        const uint32_t next = child(node, byte);
        if (next != kNone) return next;
    }
    return after_byte_[previous << 8 | byte];
}

size_t LongestFirstSegmenter::segment(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const {
    return size <= 64 ? short_word(word, size, out) : long_word(word, size, scratch, out);
}

// Up to 64 places: what is taken is one integer, and the next place to look at is found by looking at all.
size_t LongestFirstSegmenter::short_word(const uint8_t* word, size_t size, uint32_t* out) const {
    uint32_t token[64], length[64];    // the longest token that starts at each place and is still in question
    uint32_t node = 0;
    for (size_t i = size; i-- > 0;) {
        node = i + 1 < size ? step_after(node, word[i + 1], word[i]) : root_[word[i]];
        token[i] = nodes_[node].best;
        length[i] = nodes_[node].best_size;
    }
    uint64_t taken = 0, starts = 0;
    while (true) {
        size_t at = 0;
        for (size_t i = 1; i < size; ++i)
            if (length[i] > length[at]) at = i;
        if (length[at] <= 1) break;
        const uint64_t window = (length[at] == 64 ? ~0ull : (1ull << length[at]) - 1) << at;
        if ((taken & window) == 0) {
            taken |= window;
            starts |= 1ull << at;
            std::fill_n(length + at, size_[token[at]], 0);
            continue;
        }
        if (taken >> at & 1) {
            length[at] = 0;
            continue;
        }
        const auto gap = static_cast<uint32_t>(std::countr_zero(taken >> at));
        while (size_[token[at]] > gap) token[at] = prefix_[token[at]];    // ends: every byte is a token
        length[at] = size_[token[at]];
    }
    size_t num = 0;
    for (size_t i = 0; i < size;) {
        if (starts >> i & 1) {
            out[num++] = token[i];
            i += size_[token[i]];
        } else {
            out[num++] = nodes_[root_[word[i]]].best;
            ++i;
        }
    }
    return num;
}

// The same with a queue and sets of places.
size_t LongestFirstSegmenter::long_word(const uint8_t* word, size_t size, Scratch& scratch, uint32_t* out) const {
    auto& token = scratch.a;
    auto& queue = scratch.heap;    // length << 32 | ~place: the longest, then the leftmost
    token.resize(size);
    queue.clear();
    const auto entry = [&](size_t i) { return static_cast<uint64_t>(size_[token[i]]) << 32 | (~static_cast<uint32_t>(i)); };
    uint32_t node = 0;
    for (size_t i = size; i-- > 0;) {
        node = i + 1 < size ? step_after(node, word[i + 1], word[i]) : root_[word[i]];
        token[i] = nodes_[node].best;
        if (nodes_[node].best_size > 1) queue.push_back(entry(i));
    }
    std::make_heap(queue.begin(), queue.end());
    std::vector<uint8_t> taken(size, 0);
    PlaceSet starts(size);
    while (!queue.empty()) {
        std::pop_heap(queue.begin(), queue.end());
        const uint64_t top = queue.back();
        queue.pop_back();
        const size_t at = ~static_cast<uint32_t>(top);
        const size_t length = top >> 32;
        if (taken[at]) continue;
        // What was taken so far is at least as long, so inside this window it could only begin, not lie.
        const size_t gap = starts.next(at, size) - at;
        if (length <= gap) {
            std::fill_n(taken.begin() + static_cast<ptrdiff_t>(at), length, uint8_t{1});
            starts.insert(at);
            continue;
        }
        while (size_[token[at]] > gap) token[at] = prefix_[token[at]];
        if (size_[token[at]] <= 1) continue;
        queue.push_back(entry(at));
        std::push_heap(queue.begin(), queue.end());
    }
    size_t num = 0;
    for (size_t i = 0; i < size;) {
        out[num++] = taken[i] ? token[i] : nodes_[root_[word[i]]].best;
        i += taken[i] ? size_[token[i]] : 1;
    }
    scratch.shrink();
    return num;
}

}  // namespace dataforge
