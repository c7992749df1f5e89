// Cutting text into pre-tokens by hand, equal to the regular expressions of tokenizers/pretokenize.py on every input.
// Free of Python.
//
// `next<P>(p, end)` gives the end of the pre-token that starts at p. Each pattern is a list of alternatives tried in
// order; the code follows that order, with the look-ahead of `\s+(?!\S)` resolved by looking at the whole run of white
// space once. No input makes it look at a byte more than a small, fixed number of times. Text is cut from its start;
// `end` is the end of text to the patterns.
#pragma once

#include <bit>
#include <stdexcept>
#include <string>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "unicode.hpp"

namespace dataforge {

enum class Pattern { kGpt2, kCl100k, kLlama3, kQwen2, kO200k, kWhole };    // kWhole: the text is one pre-token

inline Pattern pattern_named(const std::string& name) {
    if (name == "gpt2") return Pattern::kGpt2;
    if (name == "cl100k") return Pattern::kCl100k;
    if (name == "llama3") return Pattern::kLlama3;
    if (name == "qwen2") return Pattern::kQwen2;
    if (name == "o200k") return Pattern::kO200k;
    if (name == "whole") return Pattern::kWhole;
    throw std::invalid_argument("no hand-written splitter for the pattern " + name);
}

namespace split_detail {

using Ptr = const uint8_t*;

// End of the run of characters of `set` that starts at p (p itself if there is none).
template <ClassSet set>
inline Ptr run(Ptr p, Ptr end) {
    while (p < end) {
        const Char c = char_at(p, end);
        if (!in(set, c.klass)) break;
        p += c.num_bytes;
    }
    return p;
}

// The same for letters, sixteen bytes of ASCII at a time.
inline Ptr letters(Ptr p, Ptr end) {
#if defined(__SSE2__)
    while (end - p >= 16) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m128i folded = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        // Signed compare after moving 'a' to the lowest value: one comparison for the range a..z.
        const __m128i moved = _mm_add_epi8(folded, _mm_set1_epi8(static_cast<char>(0x80 - 'a')));
        const __m128i is_letter = _mm_cmplt_epi8(moved, _mm_set1_epi8(static_cast<char>(0x80 + 26)));
        const auto mask = static_cast<uint32_t>(_mm_movemask_epi8(is_letter));
        const int ascii = std::countr_one(mask);
        p += ascii;
        if (ascii == 16) continue;
        if (*p < 0x80) return p;
        const Char c = char_at(p, end);
        if (!in(kLetters, c.klass)) return p;
        p += c.num_bytes;
    }
#endif
    return run<kLetters>(p, end);
}

// `\s+(?!\S)|\s+` on the run of white space [p, after): all of it at the end of text or when it is one character, else all
// but its last character.
inline Ptr all_but_last(Ptr p, Ptr after, Ptr end) {
    if (after == end) return after;
    Ptr last = after - 1;
    while (last > p && (*last & 0xC0) == 0x80) --last;    // white space is well-formed UTF-8, so this finds its start
    return last == p ? after : last;
}

// `'(?i:[sdmt]|ll|ve|re)` at p, where *p is an apostrophe: its end, or p. U+017F folds to s.
inline Ptr contraction_any_case(Ptr p, Ptr end) {
    const ptrdiff_t n = end - p;
    if (n >= 2) {
        const uint8_t a = p[1] | 0x20;
        if (p[1] < 0x80 && (a == 's' || a == 'd' || a == 'm' || a == 't')) return p + 2;
        if (n >= 3) {
            const uint8_t b = p[2] | 0x20;
            if (p[1] < 0x80 && p[2] < 0x80 &&
                ((a == 'l' && b == 'l') || (a == 'v' && b == 'e') || (a == 'r' && b == 'e')))
                return p + 3;
            if (p[1] == 0xC5 && p[2] == 0xBF) return p + 3;
        }
    }
    return p;
}

inline Ptr contraction_lower(Ptr p, Ptr end) {
    const ptrdiff_t n = end - p;
    if (n >= 2 && (p[1] == 's' || p[1] == 'd' || p[1] == 'm' || p[1] == 't')) return p + 2;
    if (n >= 3 && ((p[1] == 'l' && p[2] == 'l') || (p[1] == 'v' && p[2] == 'e') || (p[1] == 'r' && p[2] == 'e')))
        return p + 3;
    return p;
}

// '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
inline Ptr next_gpt2(Ptr p, Ptr end) {
    if (*p == '\'') {
        const Ptr q = contraction_lower(p, end);
        if (q != p) return q;
    }
    const Ptr body = *p == ' ' && end - p > 1 ? p + 1 : p;
    const Char c = char_at(body, end);
    if (in(kLetters, c.klass)) return letters(body + c.num_bytes, end);
    if (in(kNumbers, c.klass)) return run<kNumbers>(body + c.num_bytes, end);
    if (in(kPlain, c.klass)) return run<kPlain>(body + c.num_bytes, end);
    return all_but_last(p, run<kSpaces>(body + c.num_bytes, end), end);
}

// \s*[\r\n]+|\s+(?!\S)|\s+ , and for cl100k \s++$ before them
template <bool whole_at_end>
inline Ptr white_space(Ptr p, Ptr end) {
    Ptr after = p, after_newline = p;
    while (after < end) {
        const Char c = char_at(after, end);
        if (!in(kSpaces, c.klass)) break;
        after += c.num_bytes;
        if (c.klass == kNewline) after_newline = after;
    }
    if (whole_at_end && after == end) return after;
    return after_newline != p ? after_newline : all_but_last(p, after, end);
}

//  ?[^\s\p{L}\p{N}]+[\r\n]* from the first character after the space, [\r\n/]* for o200k
template <bool slash>
inline Ptr plain_and_newlines(Ptr p, Ptr end) {
    p = run<kPlain>(p, end);
    while (p < end && (*p == '\r' || *p == '\n' || (slash && *p == '/'))) ++p;
    return p;
}

inline Ptr numbers(Ptr p, Ptr end, int at_most) {
    for (int i = 0; i < at_most && p < end; ++i) {
        const Char c = char_at(p, end);
        if (c.klass != kNumber) break;
        p += c.num_bytes;
    }
    return p;
}

// '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <int max_digits, bool whole_at_end>
inline Ptr next_cl100k(Ptr p, Ptr end) {
    if (*p == '\'') {
        const Ptr q = contraction_any_case(p, end);
        if (q != p) return q;
    }
    const Char c = char_at(p, end);
    const Ptr body = p + c.num_bytes;
    if (in(kLetters, c.klass)) return letters(body, end);
    if (c.klass == kNumber) return numbers(body, end, max_digits - 1);
    if (body < end && c.klass != kNewline) {
        const Char d = char_at(body, end);
        if (in(kLetters, d.klass)) return letters(body + d.num_bytes, end);
        if (*p == ' ' && in(kPlain, d.klass)) return plain_and_newlines<false>(body, end);
    }
    if (in(kPlain, c.klass)) return plain_and_newlines<false>(body, end);
    return white_space<whole_at_end>(p, end);
}

// The word of o200k after its optional first character: with U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and
// L = [\p{Ll}\p{Lm}\p{Lo}\p{M}], U*L+ if that matches, else U+L*. Both are greedy with backtracking: U* takes its whole run
// and, when no lower-case letter follows, gives back up to the last character that L knows too.
struct CasedWord {
    Ptr lower;    // end of U*L+, null if it does not match
    Ptr upper;    // end of U+L*, null if it does not match
};
inline CasedWord cased_word(Ptr p, Ptr end) {
    constexpr ClassSet kBoth = set_of(kCaseless) | set_of(kMark), kU = kBoth | set_of(kUpper), kL = kBoth | set_of(kLower);
    Ptr q = p, after_both = nullptr;
    while (q < end) {
        const Char c = char_at(q, end);
        if (!in(kU, c.klass)) break;
        q += c.num_bytes;
        if (in(kBoth, c.klass)) after_both = q;
    }
    const Ptr tail = run<kL>(q, end);
    return {tail != q ? tail : after_both, q != p ? tail : nullptr};
}

inline Ptr next_o200k(Ptr p, Ptr end) {
    constexpr ClassSet kPrefix = kPlain | set_of(kSpace);
    const Char c = char_at(p, end);
    const Ptr body = p + c.num_bytes;
    const bool may_prefix = in(kPrefix, c.klass) && body < end;
    const CasedWord after = may_prefix ? cased_word(body, end) : CasedWord{nullptr, nullptr};
    Ptr word = after.lower;
    if (!word) {
        const bool may_start = in(kLetters | set_of(kMark), c.klass);
        const CasedWord here = may_start ? cased_word(p, end) : CasedWord{nullptr, nullptr};
        word = here.lower ? here.lower : after.upper ? after.upper : here.upper;
    }
    if (word) return word < end && *word == '\'' ? contraction_any_case(word, end) : word;
    if (c.klass == kNumber) return numbers(body, end, 2);
    if (*p == ' ' && body < end && in(kPlain, char_at(body, end).klass)) return plain_and_newlines<true>(body, end);
    if (in(kPlain, c.klass)) return plain_and_newlines<true>(body, end);
    return white_space<false>(p, end);
}

}  // namespace split_detail

// End of the pre-token that starts at p, for p < end.
template <Pattern pattern>
inline const uint8_t* next_pretoken(const uint8_t* p, const uint8_t* end) {
    if constexpr (pattern == Pattern::kGpt2) return split_detail::next_gpt2(p, end);
    if constexpr (pattern == Pattern::kCl100k) return split_detail::next_cl100k<3, true>(p, end);
    if constexpr (pattern == Pattern::kLlama3) return split_detail::next_cl100k<3, false>(p, end);
    if constexpr (pattern == Pattern::kQwen2) return split_detail::next_cl100k<1, false>(p, end);
    if constexpr (pattern == Pattern::kO200k) return split_detail::next_o200k(p, end);
    if constexpr (pattern == Pattern::kWhole) return end;
}

// Calls f(begin, end) for each pre-token of the text, in order.
template <Pattern pattern, typename F>
inline void for_each_pretoken(const uint8_t* p, const uint8_t* end, F&& f) {
    while (p < end) {
        const uint8_t* q = next_pretoken<pattern>(p, end);
        f(p, q);
        p = q;
    }
}

// The same with the pattern chosen at run time.
template <typename F>
inline void for_each_pretoken(Pattern pattern, const uint8_t* p, const uint8_t* end, F&& f) {
    switch (pattern) {
        case Pattern::kGpt2: return for_each_pretoken<Pattern::kGpt2>(p, end, f);
        case Pattern::kCl100k: return for_each_pretoken<Pattern::kCl100k>(p, end, f);
        case Pattern::kLlama3: return for_each_pretoken<Pattern::kLlama3>(p, end, f);
        case Pattern::kQwen2: return for_each_pretoken<Pattern::kQwen2>(p, end, f);
        case Pattern::kO200k: return for_each_pretoken<Pattern::kO200k>(p, end, f);
        case Pattern::kWhole: return for_each_pretoken<Pattern::kWhole>(p, end, f);
    }
}

}  // namespace dataforge
