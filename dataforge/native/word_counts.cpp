#include "word_counts.hpp"

#include <algorithm>
#include <atomic>

#include "hashing.hpp"

namespace dataforge {

void WordCounts::add(const uint8_t* word, size_t size, int64_t count, const uint8_t* readable) {
    if (size > ShortKey::kMostBytes) return add_long(word, size, count);
    const ShortKey key = short_key(word, size, readable);
    add_short(key, hash_of(key), count);
}

void WordCounts::add_all(const ByteSpan* words, size_t num, const uint8_t* readable) {
    constexpr size_t kWindow = 64;
    ShortKey keys[kWindow];
    uint64_t hashes[kWindow];
    for (size_t first = 0; first < num; first += kWindow) {
        const size_t some = std::min(kWindow, num - first);
        if (2 * (num_short_ + some) >= short_.size()) grow_short();
        for (size_t i = 0; i < some; ++i) {
            const ByteSpan& word = words[first + i];
            if (word.size() > ShortKey::kMostBytes) continue;
            keys[i] = short_key(word.begin, word.size(), readable);
            hashes[i] = hash_of(keys[i]);
#if defined(__GNUC__)
            __builtin_prefetch(&short_[hashes[i] & (short_.size() - 1)]);
#endif
        }
        for (size_t i = 0; i < some; ++i) {
            const ByteSpan& word = words[first + i];
            if (word.size() <= ShortKey::kMostBytes)
                add_short(keys[i], hashes[i], 1);
            else
                add_long(word.begin, word.size(), 1);
        }
    }
}

void WordCounts::add_short(const ShortKey& key, uint64_t hash, int64_t count) {
    if (2 * num_short_ >= short_.size()) grow_short();
    const size_t mask = short_.size() - 1;
    for (size_t slot = hash & mask;; slot = (slot + 1) & mask) {
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
    }
}

void WordCounts::add_long(const uint8_t* word, size_t size, int64_t count) {
    if (2 * num_long_ >= long_.size()) grow_long();
    const uint64_t hash = hash_of(word, size);
    const size_t mask = long_.size() - 1;
    for (size_t slot = hash & mask;; slot = (slot + 1) & mask) {
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
            constexpr size_t kWords = 256;
            ByteSpan words[kWords];
            size_t num = 0;
            for_each_pretoken(pattern, text.begin, text.end, [&](const uint8_t* begin, const uint8_t* end) {
                words[num++] = {begin, end};
                if (num < kWords) return;
                into.add_all(words, num, text.end);
                num = 0;
            });
            into.add_all(words, num, text.end);
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
