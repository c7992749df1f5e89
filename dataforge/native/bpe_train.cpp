// The trainer of Scaffold-BPE (arXiv:2404.17808): merges by frequency, a lazy heap, scaffold flags and returns.
//
// The words lie one behind the other in `symbol_`, a separator between them. A token that covers places [s, s + size)
// writes its id at s and at its last place; from a start one finds the next start by the token's size and the previous
// one by the id that stands just before. That takes four bytes a symbol, where linked lists take twelve.
//
// A pair's occurrences all arise in the one step that makes its younger member; afterwards it only loses some. So they
// are kept as one run of an arena, in ascending order, looked at again (not updated) when the pair's turn comes; and the
// heap needs no decrease-key: an entry is compared with the pair's present count when it comes to the top.
#include "bpe_train.hpp"

#include <algorithm>
#include <stdexcept>

#include "hashing.hpp"

namespace dataforge {
namespace {

constexpr uint32_t kSeparator = 0xFFFFFFFF;    // between words
constexpr uint32_t kInside = 0xFFFFFFFE;       // the former start of a right child
constexpr uint32_t kNone = 0xFFFFFFFF;

struct Pair {
    uint32_t left, right;
    int64_t count = 0;
    uint64_t first = 0;     // its occurrences are arena[first, first + num)
    uint32_t num = 0;
};

// From (left, right) to the index of a Pair.
class PairIndex {
public:
    uint32_t find(uint32_t left, uint32_t right) const {
        const uint64_t key = static_cast<uint64_t>(left) << 32 | right;
        for (size_t slot = place(key);; slot = (slot + 1) & mask_) {
            if (slots_[slot].value == kNone) return kNone;
            if (slots_[slot].key == key) return slots_[slot].value;
        }
    }
    void insert(uint32_t left, uint32_t right, uint32_t value) {
        if (2 * ++size_ > slots_.size()) grow();
        put({static_cast<uint64_t>(left) << 32 | right, value});
    }

private:
    struct Slot {
        uint64_t key = 0;
        uint32_t value = kNone;
    };
    size_t place(uint64_t key) const { return mix(key, 0x9E3779B97F4A7C15ull) & mask_; }
    void put(Slot entry) {
        size_t slot = place(entry.key);
        while (slots_[slot].value != kNone) slot = (slot + 1) & mask_;
        slots_[slot] = entry;
    }
    void grow() {
        std::vector<Slot> old(2 * slots_.size());
        old.swap(slots_);
        mask_ = slots_.size() - 1;
        for (const Slot& entry : old)
            if (entry.value != kNone) put(entry);
    }
    std::vector<Slot> slots_ = std::vector<Slot>(1 << 12);
    size_t mask_ = (1 << 12) - 1, size_ = 0;
};

// An entry of the queue; a greater one comes first: more frequent, a return before a merge, lower left id, lower right id.
struct Entry {
    int64_t frequency;
    uint32_t left, right;     // right is kNone for the return of token `left`
    uint32_t pair;            // index of the Pair, kNone for a return

    bool is_return() const { return pair == kNone; }
    bool operator<(const Entry& other) const {
        if (frequency != other.frequency) return frequency < other.frequency;
        if (is_return() != other.is_return()) return other.is_return();
        if (left != other.left) return left > other.left;
        return right > other.right;
    }
};

class Trainer {
public:
    Trainer(const std::vector<CountedWord>& words, size_t num_special_tokens, bool scaffold)
        : words_(words), scaffold_(scaffold), num_pinned_(256 + num_special_tokens) {
        size_t num_places = 1;
        for (const CountedWord& word : words) num_places += word.size + 1;
        if (num_places >= kInside) throw std::length_error("too many symbols in distinct words");
        symbol_.reserve(num_places);
        word_.reserve(num_places);
        size_.assign(num_pinned_, 1);
        result_.frequency.assign(num_pinned_, 0);
        result_.is_scaffold.assign(num_pinned_, 0);
        symbol_.push_back(kSeparator);
        word_.push_back(0);
        for (size_t w = 0; w < words.size(); ++w) {
            for (size_t i = 0; i < words[w].size; ++i) {
                symbol_.push_back(words[w].data[i]);
                word_.push_back(static_cast<uint32_t>(w));
                result_.frequency[words[w].data[i]] += words[w].count;
            }
            symbol_.push_back(kSeparator);
            word_.push_back(static_cast<uint32_t>(w));
        }
        first_pairs();
    }

    TrainedMerges train(size_t vocab_size) {
        size_t num_tokens = num_pinned_;    // that are not scaffolds
        result_.ran_dry = false;
        while (num_tokens < vocab_size) {
            if (head_frequency() == 0) {
                result_.ran_dry = true;
                break;
            }
            const Entry entry = pop();
            if (entry.is_return()) {
                result_.is_scaffold[entry.left] = 0;
                ++num_tokens;
                result_.events.push_back({TrainingEvent::kReturn, entry.left, -1, entry.frequency});
                continue;
            }
            merge(entry.pair);
            ++num_tokens;
            result_.events.push_back({TrainingEvent::kMerge, entry.left, entry.right, entry.frequency});
            if (!scaffold_) continue;
            const int64_t price = head_frequency();
            for (const uint32_t child : {entry.left, entry.right}) {
                if (child < num_pinned_ || result_.is_scaffold[child] || result_.frequency[child] >= price) continue;
                result_.is_scaffold[child] = 1;
                --num_tokens;
                const int64_t left_over = result_.frequency[child];
                result_.events.push_back({TrainingEvent::kFlag, child, -1, left_over});
                if (left_over > 0) push({left_over, child, kNone, kNone});
            }
        }
        return std::move(result_);
    }

private:
    void first_pairs() {
        std::vector<uint32_t> index(1 << 16, kNone);
        const auto pair_at = [&](size_t place) -> uint32_t { return symbol_[place] << 8 | symbol_[place + 1]; };
        const auto is_pair = [&](size_t place) { return symbol_[place] < 256 && symbol_[place + 1] < 256; };
        for (size_t place = 0; place + 1 < symbol_.size(); ++place) {
            if (!is_pair(place)) continue;
            uint32_t& found = index[pair_at(place)];
            if (found == kNone) {
                found = static_cast<uint32_t>(pairs_.size());
                pairs_.push_back({symbol_[place], symbol_[place + 1]});
            }
            pairs_[found].count += words_[word_[place]].count;
            ++pairs_[found].num;
        }
        uint64_t filled = 0;
        for (Pair& pair : pairs_) {
            pair.first = filled;
            filled += pair.num;
            pair.num = 0;
        }
        arena_.resize(filled);
        for (size_t place = 0; place + 1 < symbol_.size(); ++place) {
            if (!is_pair(place)) continue;
            Pair& pair = pairs_[index[pair_at(place)]];
            arena_[pair.first + pair.num++] = static_cast<uint32_t>(place);
        }
        for (uint32_t i = 0; i < pairs_.size(); ++i) {
            index_.insert(pairs_[i].left, pairs_[i].right, i);
            push({pairs_[i].count, pairs_[i].left, pairs_[i].right, i});
        }
    }

    // What a merge does to one neighbouring token: the pair with the old child loses, the pair with the new token gains.
    struct Neighbour {
        int64_t weight = 0;
        uint32_t num = 0;           // occurrences of the new pair
        uint32_t pair = 0;          // its index
        uint32_t seen_in = kNone;   // the merge that this is about
    };
    struct Meeting {
        uint32_t id, place;         // a neighbour, and where the new pair starts
    };

    void merge(uint32_t pair_index) {
        const uint32_t left = pairs_[pair_index].left, right = pairs_[pair_index].right;
        const auto token = static_cast<uint32_t>(size_.size());
        const uint32_t left_size = size_[left], right_size = size_[right];
        size_.push_back(left_size + right_size);
        result_.left.push_back(static_cast<int32_t>(left));
        result_.right.push_back(static_cast<int32_t>(right));
        result_.is_scaffold.push_back(0);
        before_.resize(size_.size());
        after_.resize(size_.size());
        touched_before_.clear();
        touched_after_.clear();
        met_before_.clear();
        met_after_.clear();

        int64_t replaced = 0;
        for (uint64_t i = pairs_[pair_index].first, last = i + pairs_[pair_index].num; i < last; ++i) {
            const uint32_t start = arena_[i];
            const uint32_t middle = start + left_size;
            if (symbol_[start] != left || symbol_[middle] != right) continue;    // taken by an earlier merge
            const uint32_t end = middle + right_size;
            const int64_t weight = words_[word_[start]].count;
            const uint32_t x = symbol_[start - 1], y = symbol_[end];
            symbol_[middle] = kInside;
            symbol_[start] = token;
            symbol_[end - 1] = token;
            replaced += weight;
            if (x != kSeparator) {
                touch(before_, touched_before_, x, weight, token);
                met_before_.push_back({x, start - size_[x]});
            }
            if (y != kSeparator) {
                touch(after_, touched_after_, y, weight, token);
                met_after_.push_back({y, start});
            }
        }
        result_.frequency.push_back(replaced);
        result_.frequency[left] -= replaced;
        result_.frequency[right] -= replaced;

        // Gains before losses: where two merges are neighbours, the first one's new pair is at once lost to the second.
        const auto first_new = static_cast<uint32_t>(pairs_.size());
        gain(touched_before_, before_, met_before_, [&](uint32_t x) { return Pair{x, token}; });
        gain(touched_after_, after_, met_after_, [&](uint32_t y) { return Pair{token, y}; });
        for (const uint32_t x : touched_before_) lose(x, left, before_[x].weight);
        for (const uint32_t y : touched_after_) lose(right, y, after_[y].weight);
        pairs_[pair_index].count = 0;    // left == right: overlapping occurrences were counted, none is left
        for (uint32_t i = first_new; i < pairs_.size(); ++i)
            if (pairs_[i].count > 0) push({pairs_[i].count, pairs_[i].left, pairs_[i].right, i});
    }

    static void touch(std::vector<Neighbour>& table, std::vector<uint32_t>& touched, uint32_t id, int64_t weight,
                      uint32_t step) {
        Neighbour& neighbour = table[id];
        if (neighbour.seen_in != step) {
            neighbour = {0, 0, 0, step};
            touched.push_back(id);
        }
        neighbour.weight += weight;
        ++neighbour.num;
    }

    // The new pairs, their counts and, in one piece of the arena, their occurrences.
    template <typename MakePair>
    void gain(const std::vector<uint32_t>& touched, std::vector<Neighbour>& table, const std::vector<Meeting>& met,
              MakePair&& make_pair) {
        uint64_t filled = arena_.size();
        for (const uint32_t id : touched) {
            Pair pair = make_pair(id);
            pair.count = table[id].weight;
            pair.first = filled;
            table[id].pair = static_cast<uint32_t>(pairs_.size());
            filled += table[id].num;
            index_.insert(pair.left, pair.right, table[id].pair);
            pairs_.push_back(pair);
        }
        arena_.resize(filled);
        for (const Meeting& each : met) {
            Pair& pair = pairs_[table[each.id].pair];
            arena_[pair.first + pair.num++] = each.place;
        }
    }

    void lose(uint32_t left, uint32_t right, int64_t weight) {
        pairs_[index_.find(left, right)].count -= weight;
    }

    int64_t head_frequency() {
        while (!queue_.empty()) {
            const Entry& top = queue_.front();
            const int64_t now = !top.is_return()                  ? pairs_[top.pair].count
                                : result_.is_scaffold[top.left] ? result_.frequency[top.left]
                                                                  : 0;
            if (now == top.frequency) return now;
            Entry entry = pop();
            entry.frequency = now;
            if (now > 0) push(entry);
        }
        return 0;
    }

    void push(const Entry& entry) {
        queue_.push_back(entry);
        std::push_heap(queue_.begin(), queue_.end());
    }

    Entry pop() {
        std::pop_heap(queue_.begin(), queue_.end());
        const Entry entry = queue_.back();
        queue_.pop_back();
        return entry;
    }

    const std::vector<CountedWord>& words_;
    const bool scaffold_;
    const size_t num_pinned_;
    TrainedMerges result_;

    std::vector<uint32_t> symbol_, word_;    // what stands at each place, and in which word
    std::vector<uint32_t> size_;             // bytes of each token; a special token is never met
    std::vector<Pair> pairs_;
    std::vector<uint32_t> arena_;            // places of the pairs' left members
    PairIndex index_;
    std::vector<Entry> queue_;

    std::vector<Neighbour> before_, after_;  // by id, of the merge that is being made
    std::vector<uint32_t> touched_before_, touched_after_;
    std::vector<Meeting> met_before_, met_after_;
};

}  // namespace

TrainedMerges train_merges(const std::vector<CountedWord>& words, size_t vocab_size, size_t num_special_tokens,
                           bool scaffold) {
    return Trainer(words, num_special_tokens, scaffold).train(vocab_size);
}

}  // namespace dataforge
