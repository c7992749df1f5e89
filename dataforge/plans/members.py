"""Which documents a cluster holds, on disk: numbers grouped by cluster, ascending within one, memory-mapped.

`members.bin`, little-endian:

    0   8 bytes    magic b"DFMEMBER"
    8   uint32     format version, 1
    12  uint32     CRC-32 of the bytes from 16 to the end of the offsets
    16  int64      C, clusters
    24  int64      N, documents
    32  int64 [C+1]  offsets: cluster c holds numbers[offsets[c] : offsets[c + 1]]
    ..  int64 [N]    numbers

The size of the file follows from C and N, so a torn file is found when it is opened; the numbers themselves are covered
by the artifact's manifest (`dataforge verify`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataforge.errors import FormatError, InputError

I64 = NDArray[np.int64]

MAGIC = b"DFMEMBER"
VERSION = 1
_HEADER = struct.Struct("<8sIIqq")
_READ_NUMBERS = 1 << 20


class Members:
    """A member index, opened in time that does not depend on the number of documents."""

    def __init__(self, path: Path | str) -> None:
        """Map `members.bin`. Raises FormatError if it is torn, over-long or something else."""
        self.path = Path(path)
        size = self.path.stat().st_size
        with open(self.path, "rb") as file:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size or header[:8] != MAGIC:
                raise FormatError("this is no member index", where=str(self.path), hint="make the plan again")
            _, version, checksum, clusters, documents = _HEADER.unpack(header)
            if version != VERSION:
                raise FormatError(
                    f"the member index has version {version}, this dataforge reads {VERSION}",
                    where=str(self.path),
                    hint="install a newer dataforge-lm",
                )
            wanted = _size(clusters, documents) if clusters >= 0 and documents >= 0 else -1
            if wanted != size:
                raise FormatError(
                    f"the member index has {size:,} bytes; {clusters:,} clusters and {documents:,} documents need "
                    f"{wanted:,}",
                    where=str(self.path),
                    hint="it was cut short or damaged: make the plan again",
                )
            offsets = file.read((clusters + 1) * 8)
        if zlib.crc32(offsets, zlib.crc32(header[16:])) != checksum:
            raise FormatError("the offsets of the member index are damaged", where=str(self.path), hint="make it again")
        self.offsets: I64 = np.frombuffer(offsets, dtype="<i8")
        self.numbers: I64 = _map(self.path, "r", clusters, documents)

    def __reduce__(self) -> tuple[type[Members], tuple[Path]]:
        return Members, (self.path,)  # another process maps the file; the numbers do not travel

    @property
    def num_clusters(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_documents(self) -> int:
        return len(self.numbers)

    @property
    def sizes_C(self) -> I64:
        """Documents in each cluster, int64, shape (C,)."""
        return np.diff(self.offsets)

    def document_numbers(self, cluster: ArrayLike, document_in_cluster: ArrayLike) -> I64:
        """The numbers of documents given by cluster and place in it, int64, of their broadcast shape.

        Raises:
            InputError: a cluster or a place is not there.
        """
        clusters, inside = np.broadcast_arrays(np.asarray(cluster, np.int64), np.asarray(document_in_cluster, np.int64))
        there = (clusters >= 0) & (clusters < self.num_clusters)
        start = self.offsets[np.where(there, clusters, 0)]
        size = self.offsets[np.where(there, clusters, 0) + 1] - start
        there &= (inside >= 0) & (inside < size)
        if not there.all():
            bad = np.flatnonzero(~there.reshape(-1))[0]
            raise InputError(
                f"cluster {clusters.reshape(-1)[bad]:,} has no document {inside.reshape(-1)[bad]:,}",
                where=str(self.path),
                hint=f"clusters run from 0 to {self.num_clusters - 1:,}, places from 0 to the cluster's size less 1",
            )
        return np.asarray(self.numbers[start + inside], dtype=np.int64)

    def pieces(self) -> Iterator[I64]:
        """All numbers in file order, in pieces of bounded size."""
        for start in range(0, self.num_documents, _READ_NUMBERS):
            yield np.asarray(self.numbers[start : start + _READ_NUMBERS])


def write_members(
    path: Path, num_clusters: int, labelled: Callable[[], Iterable[tuple[I64, NDArray[np.integer]]]]
) -> Members:
    """Write a member index by a counting sort: one pass counts, a second puts each number in its place.

    Memory is bounded by one batch and the clusters: the numbers are written through a memory map.

    Args:
        path: where to; a file that is there is overwritten.
        num_clusters: C.
        labelled: gives the batches (numbers ascending over all of them, labels in 0..C-1) afresh for each pass.
    """
    sizes = np.zeros(num_clusters, np.int64)
    for _, labels in labelled():
        sizes += np.bincount(labels, minlength=num_clusters)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype("<i8")
    body = struct.pack("<qq", num_clusters, int(offsets[-1])) + offsets.tobytes()
    with open(path, "wb") as file:
        file.write(struct.pack("<8sII", MAGIC, VERSION, zlib.crc32(body)) + body)
        file.truncate(_size(num_clusters, int(offsets[-1])))
    numbers = _map(path, "r+", num_clusters, int(offsets[-1]))
    filled = offsets[:-1].copy()
    for batch, labels in labelled():
        order = np.argsort(labels, kind="stable")
        label = labels[order]
        starts = np.flatnonzero(np.diff(label, prepend=-1))
        counts = np.diff(starts, append=len(label))
        within = np.arange(len(label)) - np.repeat(starts, counts)
        numbers[filled[label] + within] = batch[order]
        filled[label[starts]] += counts
    if isinstance(numbers, np.memmap):
        numbers.flush()
    return Members(path)


def _size(clusters: int, documents: int) -> int:
    return _HEADER.size + 8 * (clusters + 1 + documents)


def _map(path: Path, mode: str, clusters: int, documents: int) -> I64:
    if documents == 0:  # a map of no bytes is refused by the system
        return np.zeros(0, np.int64)
    offset = _HEADER.size + 8 * (clusters + 1)
    return np.memmap(path, dtype="<i8", mode=mode, offset=offset, shape=(documents,))  # type: ignore[call-overload]
