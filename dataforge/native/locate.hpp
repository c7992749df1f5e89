// Documents by number in mapped shards: a table look-up where a shard's numbers have no holes, else a binary search.
// Free of Python.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace dataforge {

struct DocumentTables {    // P parts; addresses are 0 where a table is not mapped
    const uint64_t* numbers;  // of int64 document numbers, rising; 0 for a part whose numbers have no holes
    const uint64_t* ends;     // of int64 ends, counted in tokens
    const int64_t* first_number;
    const int64_t* num_documents;
    size_t count;
};

// Writes where each document begins in its part, and its tokens. Returns the first document that is not in the part
// given for it, `count` if all are.
inline size_t locate(const DocumentTables& tables, const int64_t* part, const int64_t* number, size_t count,
                     int64_t* start, int64_t* length) {
    for (size_t i = 0; i < count; ++i) {
        if (part[i] < 0 || static_cast<uint64_t>(part[i]) >= tables.count) return i;
        const auto p = static_cast<size_t>(part[i]);
        const auto* ends = reinterpret_cast<const int64_t*>(tables.ends[p]);
        const auto* numbers = reinterpret_cast<const int64_t*>(tables.numbers[p]);
        const int64_t documents = tables.num_documents[p];
        if (ends == nullptr) return i;
        int64_t index = number[i] - tables.first_number[p];
        if (numbers != nullptr) index = std::lower_bound(numbers, numbers + documents, number[i]) - numbers;
        if (index < 0 || index >= documents || (numbers != nullptr && numbers[index] != number[i])) return i;
        start[i] = index > 0 ? ends[index - 1] : 0;
        length[i] = ends[index] - start[i];
    }
    return count;
}

}  // namespace dataforge
