// An array of zero bytes, on large pages where it is large. Free of Python.
//
// A table that is read at random misses the processor's table of pages as often as its cache; pages of 2 MiB, asked for
// before the first touch, halve that. Only a request: where the system has none, nothing changes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dataforge {

template <typename T>
class ZeroedArray {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

public:
    explicit ZeroedArray(size_t size) : size_(size) {
        const size_t bytes = size * sizeof(T);
        alignment_ = std::max(bytes >= kLargePage ? kLargePage : size_t{64}, alignof(T));
        data_ = static_cast<T*>(::operator new(bytes, std::align_val_t{alignment_}));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (bytes >= kLargePage) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
        std::memset(static_cast<void*>(data_), 0, bytes);
    }
    ~ZeroedArray() { ::operator delete(data_, std::align_val_t{alignment_}); }
    ZeroedArray(const ZeroedArray&) = delete;
    ZeroedArray& operator=(const ZeroedArray&) = delete;

    void swap(ZeroedArray& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(alignment_, other.alignment_);
    }
    size_t size() const { return size_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }

private:
    static constexpr size_t kLargePage = size_t{2} << 20;
    T* data_;
    size_t size_;
    size_t alignment_;
};

}  // namespace dataforge
