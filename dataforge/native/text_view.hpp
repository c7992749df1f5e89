// A text somewhere in memory, in one of four widths, and its bytes as UTF-8. Free of Python.
//
// Python keeps a string in one, two or four bytes a character; ASCII is already UTF-8 and is read where it lies, the rest
// is written to a scratch buffer of the thread that works on it, without the interpreter lock and without growing the
// string. A lone surrogate becomes its three bytes (Python's "surrogatepass"): nothing is lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace dataforge {

struct ByteSpan {
    const uint8_t* begin;
    const uint8_t* end;
    size_t size() const { return static_cast<size_t>(end - begin); }
};

struct TextView {
    enum Kind : uint8_t { kUtf8 = 0, kLatin1 = 1, kUcs2 = 2, kUcs4 = 4 };
    const void* data = nullptr;
    size_t length = 0;      // in units of the kind: bytes, or characters
    Kind kind = kUtf8;

    size_t most_bytes() const { return kind == kUtf8 ? length : length * (kind == kLatin1 ? 2 : kind == kUcs2 ? 3 : 4); }
};

namespace text_detail {
template <typename Unit>
inline uint8_t* transcode(const Unit* text, size_t length, uint8_t* out) {
    for (size_t i = 0; i < length; ++i) {
        const uint32_t c = text[i];
        if (c < 0x80) {
            *out++ = static_cast<uint8_t>(c);
        } else if (c < 0x800) {
            *out++ = static_cast<uint8_t>(0xC0 | c >> 6);
            *out++ = static_cast<uint8_t>(0x80 | (c & 63));
        } else if (c < 0x10000) {
            *out++ = static_cast<uint8_t>(0xE0 | c >> 12);
            *out++ = static_cast<uint8_t>(0x80 | (c >> 6 & 63));
            *out++ = static_cast<uint8_t>(0x80 | (c & 63));
        } else {
            *out++ = static_cast<uint8_t>(0xF0 | c >> 18);
            *out++ = static_cast<uint8_t>(0x80 | (c >> 12 & 63));
            *out++ = static_cast<uint8_t>(0x80 | (c >> 6 & 63));
            *out++ = static_cast<uint8_t>(0x80 | (c & 63));
        }
    }
    return out;
}
}  // namespace text_detail

// The text's UTF-8 bytes: in place where they already are, else in `scratch`, valid until its next use.
inline ByteSpan utf8_bytes(const TextView& text, std::vector<uint8_t>& scratch) {
    if (text.kind == TextView::kUtf8) {
        const auto* p = static_cast<const uint8_t*>(text.data);
        return {p, p + text.length};
    }
    if (scratch.size() < text.most_bytes()) scratch.resize(text.most_bytes());
    uint8_t* end = scratch.data();
    switch (text.kind) {
        case TextView::kLatin1: end = text_detail::transcode(static_cast<const uint8_t*>(text.data), text.length, end); break;
        case TextView::kUcs2: end = text_detail::transcode(static_cast<const uint16_t*>(text.data), text.length, end); break;
        default: end = text_detail::transcode(static_cast<const uint32_t*>(text.data), text.length, end); break;
    }
    return {scratch.data(), end};
}

// Runs work(thread) on `num_threads` threads, the caller's among them, and throws the first exception after all ended.
template <typename Work>
void run_on_threads(size_t num_threads, Work&& work) {
    std::exception_ptr first;
    std::mutex guard;
    const auto guarded = [&](size_t thread) {
        try {
            work(thread);
        } catch (...) {
            const std::lock_guard lock(guard);
            if (!first) first = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(num_threads);
    for (size_t t = 1; t < num_threads; ++t) {
        try {
            others.emplace_back(guarded, t);
        } catch (...) {    // no more threads to be had: those that run share the work
            break;
        }
    }
    guarded(0);
    for (auto& other : others) other.join();
    if (first) std::rethrow_exception(first);
}

}  // namespace dataforge
