// Texts to token ids: split, look up each pre-token, segment the ones not seen before. Free of Python.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "segmenter.hpp"
#include "splitter.hpp"
#include "text_view.hpp"
#include "word_cache.hpp"

namespace dataforge {

// A growing array without initialisation; realloc moves large ones by page tables, not by copying.
template <typename T>
class Buffer {
public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    void set_size(size_t size) { size_ = size; }    // after writing up to room(); no more than was reserved
    T* end() { return data_ + size_; }
    void reserve_more(size_t more) {
        if (capacity_ - size_ < more) grow(size_ + more);
    }
    T* release() {
        size_ = capacity_ = 0;
        return std::exchange(data_, nullptr);
    }

private:
    void swap(Buffer& other) {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
    }
    void grow(size_t least) {
        const size_t capacity = std::max(least, capacity_ + capacity_ / 2);
        void* moved = std::realloc(data_, capacity * sizeof(T));
        if (!moved) throw std::bad_alloc();
        data_ = static_cast<T*>(moved);
        capacity_ = capacity;
    }
    T* data_ = nullptr;
    size_t size_ = 0, capacity_ = 0;
};

template <typename Id>
struct Encoded {
    Buffer<Id> ids;                    // of all texts, one behind the other
    std::vector<int64_t> offsets;      // text i is ids [offsets[i], offsets[i + 1])
};

enum class EncoderKind { kBpe, kLbpe };

// Immutable but for a stock of caches, which calls borrow under a lock; safe to use from any number of threads.
template <typename Id>
class Encoder {
public:
    Encoder(const VocabularyTables& vocabulary, Pattern pattern, EncoderKind kind);
    ~Encoder();
    Encoded<Id> encode(const std::vector<TextView>& texts, size_t num_threads) const;

private:
    struct Worker;
    std::unique_ptr<Worker> borrow() const;
    void give_back(std::unique_ptr<Worker> worker) const;
    void encode_texts(Worker& worker, const TextView* texts, size_t num, Buffer<Id>& ids, int64_t* lengths) const;
    void encode_rarer(Worker& worker, ByteSpan word, const ShortKey& key, uint64_t hash, bool look, Buffer<Id>& ids) const;
    template <Pattern pattern>
    void encode_bytes(Worker& worker, ByteSpan text, Buffer<Id>& ids) const;

    const Pattern pattern_;
    std::unique_ptr<const Segmenter> segmenter_;
    mutable std::mutex guard_;
    mutable std::vector<std::unique_ptr<Worker>> idle_;
};

extern template class Encoder<uint16_t>;
extern template class Encoder<uint32_t>;

}  // namespace dataforge
