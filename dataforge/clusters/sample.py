"""Which documents k-means is fitted on: a seeded sample in which every source and part has its proportional share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from dataforge import seeds
from dataforge.corpus import DocumentPart
from dataforge.embeddings import Matrix


def systematic_shares(sizes: np.ndarray, num_wanted: int, offset: int) -> np.ndarray:
    """How many of each cell are taken when every N/n-th item of all cells in a row is: int64, summing to `num_wanted`.

    Every run of neighbouring cells gets its proportional share rounded up or down, so cells sorted by source, then
    part, are stratified by both at once. A cell with a share below one is taken with the probability of its share.

    Args:
        sizes: items in each cell, int64.
        num_wanted: items to take in all, at most the sum of the sizes.
        offset: where the walk begins, 0 up to the sum of the sizes (exclusive); drawn at random by the caller.

    >>> systematic_shares(np.array([6, 3, 1, 2]), num_wanted=4, offset=5)
    array([2, 1, 0, 1])
    """
    total = int(sizes.sum())
    assert 0 <= num_wanted <= total
    if num_wanted == 0:
        return np.zeros(len(sizes), dtype=np.int64)
    assert 0 <= offset < total
    places = (offset + np.arange(num_wanted, dtype=np.int64) * total) // num_wanted
    before = np.searchsorted(places, np.cumsum(sizes), side="left")
    return np.diff(before, prepend=0)


def sample_rows(matrix: Matrix, num_wanted: int, seed: int) -> tuple[np.ndarray, int]:
    """Global rows of a stratified sample, int64 ascending, and how many rows there were to choose from.

    Held-out documents are never chosen. Memory: the counts of (source, part) cells, and one part's sources at a time.

    Args:
        matrix: the vectors; their documents say source and held-out.
        num_wanted: most rows to take; all of them if there are fewer.
        seed: of the choice.
    """
    cells: Counter[tuple[str, int]] = Counter()
    for index, part in enumerate(matrix.document_parts):
        for source, rows in _rows_by_source(part):
            cells[source, index] += len(rows)
    keys = sorted(cells)
    sizes = np.array([cells[key] for key in keys], dtype=np.int64)
    total = int(sizes.sum())
    if num_wanted >= total:
        num_wanted = total
    offset = int(seeds.generator(seed, "kmeans-sample").integers(total)) if total else 0
    shares = dict(zip(keys, systematic_shares(sizes, num_wanted, offset).tolist(), strict=True))
    chosen = []
    for index, (part, vectors) in enumerate(zip(matrix.document_parts, matrix.parts, strict=True)):
        for source, rows in _rows_by_source(part):
            rng = seeds.generator(seed, "kmeans-sample", index, source)
            picked = rng.choice(len(rows), size=shares[source, index], replace=False, shuffle=False)
            chosen.append(vectors.first_row + rows[picked])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64), total


def _rows_by_source(part: DocumentPart) -> Iterator[tuple[str, np.ndarray]]:
    """(source, rows within the part's kept documents that may be trained on), by source."""
    free = pc.invert(part.column("held_out"))
    rows = np.flatnonzero(free.to_numpy(zero_copy_only=False))
    encoded = pc.fill_null(part.column("source").filter(free), "").dictionary_encode()
    names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for name, begin, end in zip(names, edges[:-1], edges[1:], strict=True):
        yield name, rows[order[begin:end]]
