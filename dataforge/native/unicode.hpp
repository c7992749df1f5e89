// Code points and their classes. Free of Python.
//
// Text is bytes. A byte that is not part of a well-formed UTF-8 sequence (over-long forms, surrogates and values past
// U+10FFFF are not well-formed) is a code point of its own and of class kOther, exactly as Python's "surrogateescape"
// error handler sees it; so every byte string can be split, and splits the same way here and in the plain twin.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dataforge {

#include "unicode_tables.inc"

enum CharClass : uint8_t {
    kOther = 0,       // punctuation, symbols, controls, unassigned, invalid bytes
    kMark = 1,        // \p{M}
    kUpper = 2,       // \p{Lu} \p{Lt}
    kLower = 3,       // \p{Ll}
    kCaseless = 4,    // \p{Lm} \p{Lo}: letters that stand in both cases' places
    kNumber = 5,      // \p{N}
    kSpace = 6,       // \s without the two below
    kNewline = 7,     // \r \n
};

// A set of classes as bits; `in(set, c)` is the question that patterns ask.
using ClassSet = uint8_t;
constexpr ClassSet set_of(CharClass c) { return static_cast<ClassSet>(1u << c); }
constexpr bool in(ClassSet set, CharClass c) { return (set >> c) & 1u; }

inline constexpr ClassSet kLetters = set_of(kUpper) | set_of(kLower) | set_of(kCaseless);
inline constexpr ClassSet kNumbers = set_of(kNumber);
inline constexpr ClassSet kSpaces = set_of(kSpace) | set_of(kNewline);
inline constexpr ClassSet kPlain = set_of(kOther) | set_of(kMark);    // [^\s\p{L}\p{N}]

inline CharClass class_of(uint32_t code_point) {
    return static_cast<CharClass>(kUnicodeClass[kUnicodeBlock[code_point >> 7] * 128 + (code_point & 127)]);
}

struct Char {
    CharClass klass;
    uint32_t num_bytes;
};

// The code point at p[0] >= 0x80, for p < end. Bytes at `end` and after are not read.
inline Char wide_char_at(const uint8_t* p, const uint8_t* end) {
    const uint32_t a = p[0];
    const auto tail = [&](ptrdiff_t i) -> uint32_t { return i < end - p && (p[i] & 0xC0) == 0x80 ? p[i] & 0x3Fu : ~0u; };
    if (a >= 0xC2 && a <= 0xDF) {
        const uint32_t b = tail(1);
        if (b != ~0u) return {class_of((a & 0x1F) << 6 | b), 2};
    } else if (a >= 0xE0 && a <= 0xEF) {
        const uint32_t b = tail(1), c = tail(2);
        if (b != ~0u && c != ~0u) {
            const uint32_t code_point = (a & 0x0F) << 12 | b << 6 | c;
            if (code_point >= 0x800 && (code_point < 0xD800 || code_point > 0xDFFF)) return {class_of(code_point), 3};
        }
    } else if (a >= 0xF0 && a <= 0xF4) {
        const uint32_t b = tail(1), c = tail(2), d = tail(3);
        if (b != ~0u && c != ~0u && d != ~0u) {
            const uint32_t code_point = (a & 0x07) << 18 | b << 12 | c << 6 | d;
            if (code_point >= 0x10000 && code_point <= 0x10FFFF) return {class_of(code_point), 4};
        }
    }
    return {kOther, 1};
}

// The code point at p[0], for p < end.
inline Char char_at(const uint8_t* p, const uint8_t* end) {
    if (*p < 0x80) [[likely]] return {static_cast<CharClass>(kUnicodeClass[*p]), 1};    // block 0 is table row 0
    return wide_char_at(p, end);
}

}  // namespace dataforge
