"""Which document is draw number i: a pure function of (sizes, draws, rates, seed, i), with no state between calls.

A run is cut into segments of blocks. A segment fixes how many slots each cluster has in every one of its blocks; a
keyed permutation per block says which slot comes when, and a keyed permutation per cluster and epoch says which
document the cluster gives next. So any range of positions can be asked for alone, on any machine, by any number of
workers.

    position -> segment -> block, place -> slot -> cluster and how many draws it gave before -> epoch, document

Two ways to cut:

- *even*: every active cluster has one slot in each block and leaves when its draws are used up (ClusterClip). A cluster
  with d draws is in the first d blocks, so the last, partial block holds the clusters that got a left-over draw.
- *paced*: clusters have unequal rates. Each segment is one block; by its end cluster g has given
  floor(min(draws_g, level * rate_g) + phase_g) draws, never a whole draw away from its exact course.

A cluster's documents are all drawn once before one is drawn again; in a paced order, where a cluster may have several
slots in a block, this holds at the ends of blocks and loosely within one.

Source: the stratified, stateless form of ClusterClip (arXiv:2402.14526). Departure: the paper draws at random; a block
that holds each active cluster exactly once has the same expectation and less variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataforge.plans.permutation import U64, low_bits, mix, permute, unpermute
from dataforge.seeds import derive

I64 = NDArray[np.int64]

ALGORITHM_VERSION = 1
"""Raised whenever any (sizes, draws, rates, seed, position) would give another document; golden vectors hold it."""

_GOLDEN = 0x9E3779B97F4A7C15
_CHUNK = 1 << 15  # positions at once: long enough that calls cost little, short enough for a core's cache
_MAX_ENTRIES = 1 << 20  # (block, cluster) pairs of a paced order
_SLOTS_PER_CLUSTER = 4  # wanted in a block of a paced order, so that most clusters are in most blocks
_MIN_BLOCK = 64


class Intervals:
    """Finds the interval that holds each point, in O(1) for intervals of like length and O(log n) for any.

    >>> Intervals(np.array([0, 10, 11, 40])).find(np.array([0, 9, 10, 39]))
    array([0, 0, 1, 2])
    """

    def __init__(self, edges: I64) -> None:
        """`edges` are n + 1 strictly increasing bounds that begin with 0."""
        self.edges = edges
        self._next = edges[1:]
        count, end = len(edges) - 1, int(edges[-1])
        self._shift = max(0, end.bit_length() - (2 * count).bit_length())
        buckets = np.arange((end >> self._shift) + 1, dtype=np.int64) << self._shift
        self._guide = np.searchsorted(edges, np.minimum(buckets, end - 1), side="right").astype(np.int64) - 1

    def find_few(self, points: I64) -> I64:
        """The same as `find`, or one index of shape () where all points lie in one interval, as they often do."""
        if points.size:
            ends = self.find(np.array([points.min(), points.max()]))
            if ends[0] == ends[1]:
                return np.asarray(ends[0])
        return self.find(points)

    def find(self, points: I64) -> I64:
        """Index of the interval of each point, int64; every point lies in [0, edges[-1])."""
        index = self._guide.take(points >> self._shift)
        for _ in range(3):
            ahead = self._next.take(index) <= points
            if not ahead.any():
                return index
            index += ahead
        far = np.flatnonzero(self._next.take(index) <= points)
        if far.size:
            index[far] = np.searchsorted(self.edges, points[far], side="right") - 1
        return index


@dataclass(frozen=True)
class Place:
    """Where each position lies, and what it draws: one array per field, all int64."""

    segment: I64
    block: I64
    """Index of the block within its segment."""
    slot: I64
    cluster: I64
    draws_before: I64
    """Draws that the cluster gave before this one (in a paced order: by slot within the block, not by time)."""
    epoch: I64
    """Passes over the cluster that were finished: draws_before // size."""
    document: I64
    """Which of the cluster's documents, 0..size-1."""


class Order:
    """The order of a plan. Holds segments and clusters, never positions or documents."""

    def __init__(self, sizes_C: I64, draws_C: I64, *, seed: int, rates_C: NDArray[np.float64] | None = None) -> None:
        """Cut a run of `draws_C.sum()` positions into segments.

        Args:
            sizes_C: documents in each cluster, int64, shape (C,).
            draws_C: draws of each cluster, 0 for a cluster without documents.
            seed: any integer; it keys the permutations and nothing else.
            rates_C: relative draws per step while a cluster is active, positive where it has draws; None if equal.
        """
        assert not (draws_C[sizes_C == 0]).any(), "an empty cluster cannot be drawn"
        self.num_draws = int(draws_C.sum())
        active = np.flatnonzero(draws_C)
        if rates_C is None:
            self._cut_evenly(active, draws_C[active])
        else:
            self._cut_by_rate(active, draws_C[active], rates_C[active])
        self._slots_bits = low_bits(self._slots)
        self._size_C = np.maximum(sizes_C, 1).astype(np.int64)
        self._size_bits_C = low_bits(self._size_C)
        self._block_key = np.uint64(derive(seed, "plans", "block"))
        self._cluster_key_C = mix(
            _offset(np.arange(len(sizes_C), dtype=np.int64), np.uint64(derive(seed, "plans", "cluster")))
        )

    def _cut_evenly(self, active: I64, draws: I64) -> None:
        by_draws = np.argsort(draws, kind="stable")
        levels, first = np.unique(draws[by_draws], return_index=True)
        blocks = np.diff(levels, prepend=0)
        self._clusters = active[by_draws]  # a segment's clusters are those from its first entry to the end
        self._first_entry = first.astype(np.int64)
        self._slots = len(active) - self._first_entry
        self._blocks_before = levels - blocks
        self.segments = Intervals(np.concatenate([[0], np.cumsum(blocks * self._slots)]).astype(np.int64))
        self._entries: Intervals | None = None

    def _cut_by_rate(self, active: I64, draws: I64, rates: NDArray[np.float64]) -> None:
        num_blocks = self.num_draws // max(_MIN_BLOCK, _SLOTS_PER_CLUSTER * len(active))
        num_blocks = max(1, min(num_blocks, _MAX_ENTRIES // len(active)))
        # Phases in [0, 1) spread the clusters' roundings over the run (golden-ratio sequence); they know no seed.
        phases = (np.arange(1, len(active) + 1, dtype=np.uint64) * np.uint64(_GOLDEN) >> np.uint64(12)) / 2.0**52
        levels = _levels(draws, rates, num_blocks)
        given = np.minimum(np.floor(levels[:, None] * rates + phases), draws).astype(np.int64)
        given[0], given[-1] = 0, draws
        slots = np.diff(given, axis=0)
        block, entry = slots.nonzero()
        self._clusters = active[entry]
        self._given_before = given[block, entry]
        self._entries = Intervals(np.concatenate([[0], np.cumsum(slots[block, entry])]).astype(np.int64))
        self._slots = slots.sum(axis=1)
        self._slots = self._slots[self._slots > 0]
        self._blocks_before = np.arange(len(self._slots), dtype=np.int64)
        self.segments = Intervals(np.concatenate([[0], np.cumsum(self._slots)]).astype(np.int64))

    @property
    def num_segments(self) -> int:
        return len(self._slots)

    def describe(self) -> dict[str, Any]:
        """The cut in short: its kind, segments, blocks."""
        if self._entries is None:
            blocks = int(self._blocks_before[-1] + (np.diff(self.segments.edges)[-1] // self._slots[-1]))
            return {"cut": "even", "segments": self.num_segments, "blocks": blocks}
        return {"cut": "paced", "segments": self.num_segments, "blocks": self.num_segments}

    def cut(self) -> list[I64]:
        """The arrays that fix the cut; with the seed they fix the order."""
        own = [self.segments.edges, self._slots, self._blocks_before, self._clusters]
        paced = [] if self._entries is None else [self._given_before, self._entries.edges]
        return own + (paced or [self._first_entry])

    def at(self, positions: I64) -> tuple[I64, I64, I64]:
        """Cluster, document in the cluster and epoch of each position; three int64 arrays of the shape of `positions`.

        `positions` are int64 in [0, num_draws), in any order; the caller has checked them. Memory is bounded by chunks.
        """
        out = np.empty((3, positions.size), np.int64)
        flat = np.ascontiguousarray(positions).reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            place = self.place(flat[start : start + _CHUNK])
            stop = start + len(place.cluster)
            out[0, start:stop], out[1, start:stop], out[2, start:stop] = place.cluster, place.document, place.epoch
        cluster, document, epoch = (column.reshape(positions.shape) for column in out)
        return cluster, document, epoch

    def place(self, positions: I64) -> Place:
        """The whole way of each position from segment to document; positions of shape (N,), not cut into chunks."""
        segment = self.segments.find_few(positions)
        start = self.segments.edges.take(segment)
        slots = self._slots.take(segment)
        block, within = np.divmod(positions - start, slots)
        block_number = self._blocks_before.take(segment) + block
        slot = permute(
            within.view(np.uint64),
            np.asarray(slots).view(np.uint64),
            np.asarray(self._slots_bits.take(segment)),
            mix(_offset(block_number, self._block_key)),
        ).view(np.int64)
        if self._entries is None:
            cluster = self._clusters.take(self._first_entry.take(segment) + slot)
            draws_before = block_number  # one draw of every active cluster in each block before
        else:
            drawn = start + slot
            entry = self._entries.find(drawn)
            cluster = self._clusters.take(entry)
            draws_before = self._given_before.take(entry) + (drawn - self._entries.edges.take(entry))
        epoch, turn = np.divmod(draws_before, self._size_C.take(cluster))
        document = self.documents(cluster, epoch, turn)
        segment = np.broadcast_to(segment, positions.shape)
        return Place(segment, block, slot, cluster, draws_before, epoch, document)

    def documents(self, cluster: I64, epoch: I64, turn: I64) -> I64:
        """The document that each cluster gives at `turn` (0..size-1) of `epoch`."""
        domain, bits, key = self._cluster_permutation(cluster, epoch)
        return permute(turn.view(np.uint64), domain, bits, key).view(np.int64)

    def turns(self, cluster: I64, epoch: I64, document: I64) -> I64:
        """The turn of `epoch` at which each cluster gives `document`: the inverse of `documents`."""
        domain, bits, key = self._cluster_permutation(cluster, epoch)
        return unpermute(document.view(np.uint64), domain, bits, key).view(np.int64)

    def _cluster_permutation(self, cluster: I64, epoch: I64) -> tuple[U64, U64, U64]:
        key = mix(_offset(epoch, self._cluster_key_C.take(cluster)))
        return self._size_C.take(cluster).view(np.uint64), self._size_bits_C.take(cluster), key


def _offset(counter: I64, by: U64 | np.uint64) -> U64:
    """counter + by modulo 2^64."""
    return counter.view(np.uint64) + by


def _levels(draws: I64, rates: NDArray[np.float64], num_blocks: int) -> NDArray[np.float64]:
    """num_blocks + 1 levels at which sum(min(draws, level * rates)) passes equal steps from 0 to the sum of draws.

    Plain float64 products, quotients and running sums, in a fixed order: the same on any IEEE machine.
    """
    ends = draws / rates  # the level at which a cluster has given all its draws
    by_end = np.argsort(ends, kind="stable")
    ended = np.concatenate([[0.0], np.cumsum(draws[by_end], dtype=np.float64)])
    rate_left = np.cumsum(rates[by_end][::-1])[::-1]  # of clusters that have not ended, at each end
    total = ended[:-1] + ends[by_end] * rate_left
    targets = np.arange(num_blocks + 1) * (ended[-1] / num_blocks)
    at = np.minimum(np.searchsorted(total, targets), len(total) - 1)
    return np.maximum.accumulate((targets - ended[at]) / rate_left[at])  # rounding must not let a level fall
