#include "word_counts.hpp"

#include <algorithm>
#include <atomic>

#include "hashing.hpp"

namespace dataforge {

void WordCounts::add(const uint8_t* word, size_t size, int64_t count, const uint8_t* readable) {
    if (size <= ShortKey::kMostBytes) {
        if (2 * num_short_ >= short_.size()) grow_short();
        const ShortKey key = short_key(word, size, readable);
        const size_t mask = short_.size() - 1;
        size_t slot = hash_of(key) & mask;
        while (true) {
            Short& entry = short_[slot];
            if (entry.key[0] == key.low && entry.key[1] == key.high) {
                entry.count += count;
                return;
            }
            if (entry.key[1] == 0) {
                entry = {{key.low, key.high}, count};
                ++num_short_;
                return;
            }
            slot = (slot + 1) & mask;
        }
    }
    if (2 * num_long_ >= long_.size()) grow_long();
    const uint64_t hash = hash_of(word, size);
    const size_t mask = long_.size() - 1;
    size_t slot = hash & mask;
    while (true) {
        Long& entry = long_[slot];
        if (entry.size == 0) {
            const size_t offset = arena_.size();
            arena_.insert(arena_.end(), word, word + size);
            entry = {hash, offset, size, count};
            ++num_long_;
            return;
        }
        if (entry.hash == hash && entry.size == size && std::memcmp(arena_.data() + entry.offset, word, size) == 0) {
            entry.count += count;
            return;
        }
        slot = (slot + 1) & mask;
    }
}

void WordCounts::grow_short() {
    std::vector<Short> old(std::max<size_t>(1024, 2 * short_.size()));
    old.swap(short_);
    const size_t mask = short_.size() - 1;
    for (const Short& entry : old) {
        if (entry.key[1] == 0) continue;
        size_t slot = hash_of(ShortKey{entry.key[0], entry.key[1]}) & mask;
        while (short_[slot].key[1] != 0) slot = (slot + 1) & mask;
        short_[slot] = entry;
    }
}

void WordCounts::grow_long() {
    std::vector<Long> old(std::max<size_t>(256, 2 * long_.size()));
    old.swap(long_);
    const size_t mask = long_.size() - 1;
    for (const Long& entry : old) {
        if (entry.size == 0) continue;
        size_t slot = entry.hash & mask;
        while (long_[slot].size != 0) slot = (slot + 1) & mask;
        long_[slot] = entry;
    }
}

void WordCounts::add(const WordCounts& other) {
    for (const Short& entry : other.short_) {
        const auto* word = reinterpret_cast<const uint8_t*>(entry.key);
        if (entry.key[1] != 0) add(word, entry.key[1] >> 56, entry.count, word + sizeof(entry.key));
    }
    for (const Long& entry : other.long_) {
        const uint8_t* word = other.arena_.data() + entry.offset;
        if (entry.size != 0) add(word, entry.size, entry.count, word + entry.size);
    }
}

std::vector<CountedWord> WordCounts::sorted() const {
    struct Keyed {
        uint64_t head;    // the first eight bytes as a big-endian number: orders most pairs without touching the bytes
        CountedWord word;
    };
    std::vector<Keyed> keyed;
    keyed.reserve(size());
    const auto push = [&](const uint8_t* data, size_t size, int64_t count) {
        uint64_t head = 0;
        for (size_t i = 0; i < 8; ++i) head = head << 8 | (i < size ? data[i] : 0);
        keyed.push_back({head, {data, size, count}});
    };
    for (const Short& entry : short_)
        if (entry.key[1] != 0) push(reinterpret_cast<const uint8_t*>(entry.key), entry.key[1] >> 56, entry.count);
    for (const Long& entry : long_)
        if (entry.size != 0) push(arena_.data() + entry.offset, entry.size, entry.count);
    std::sort(keyed.begin(), keyed.end(), [](const Keyed& a, const Keyed& b) {
        if (a.head != b.head) return a.head < b.head;
        const int order = std::memcmp(a.word.data, b.word.data, std::min(a.word.size, b.word.size));
        return order != 0 ? order < 0 : a.word.size < b.word.size;
    });
    std::vector<CountedWord> words;
    words.reserve(keyed.size());
    for (const Keyed& each : keyed) words.push_back(each.word);
    return words;
}

void count_words(const std::vector<TextView>& texts, Pattern pattern, size_t num_threads, WordCounts& counts) {
    const auto count_into = [&](WordCounts& into, size_t first, size_t last, std::vector<uint8_t>& scratch) {
        for (size_t i = first; i < last; ++i) {
            const ByteSpan text = utf8_bytes(texts[i], scratch);
            for_each_pretoken(pattern, text.begin, text.end, [&](const uint8_t* begin, const uint8_t* end) {
                into.add(begin, static_cast<size_t>(end - begin), 1, text.end);
            });
        }
    };
    num_threads = std::clamp<size_t>(num_threads, 1, std::max<size_t>(texts.size(), 1));
    if (num_threads == 1) {
        std::vector<uint8_t> scratch;
        return count_into(counts, 0, texts.size(), scratch);
    }
    constexpr size_t kTextsAtOnce = 16;
    std::atomic<size_t> next{0};
    std::vector<WordCounts> own(num_threads);
    run_on_threads(num_threads, [&](size_t thread) {
        std::vector<uint8_t> scratch;
        for (size_t i; (i = next.fetch_add(kTextsAtOnce)) < texts.size();)
            count_into(own[thread], i, std::min(i + kTextsAtOnce, texts.size()), scratch);
    });
    for (const WordCounts& each : own) counts.add(each);
}

}  // namespace dataforge
