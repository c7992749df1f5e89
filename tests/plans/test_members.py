"""The member index: a counting sort in bounded memory, and a file that shows when it is torn."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import FormatError, InputError
from dataforge.plans.members import Members, write_members


def write(path: Path, labels: list[int], num_clusters: int, batch: int = 7) -> Members:
    numbers = np.arange(len(labels), dtype=np.int64) * 3 + 1
    told = np.array(labels, dtype=np.int64)

    def batches():
        for start in range(0, len(told), batch):
            yield numbers[start : start + batch], told[start : start + batch]

    return write_members(path, num_clusters, batches)


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 6), max_size=80), batch=st.integers(1, 20))
def test_each_cluster_holds_its_numbers_ascending(tmp_path_factory, labels: list[int], batch: int) -> None:
    members = write(tmp_path_factory.mktemp("members") / "members.bin", labels, 8, batch)
    assert members.sizes_C.tolist() == np.bincount(labels, minlength=8).tolist() if labels else [0] * 8
    for cluster in range(8):
        wanted = [index * 3 + 1 for index, label in enumerate(labels) if label == cluster]
        start, stop = members.offsets[cluster : cluster + 2]
        assert members.numbers[start:stop].tolist() == wanted
        if wanted:
            inside = np.arange(len(wanted))
            assert members.document_numbers(np.full(len(wanted), cluster), inside).tolist() == wanted


def test_an_index_travels_as_its_path(tmp_path: Path) -> None:
    members = write(tmp_path / "members.bin", [0, 1] * 50_000, 2)
    sent = pickle.dumps(members)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).numbers, members.numbers)


def test_places_that_are_not_there_are_refused(tmp_path: Path) -> None:
    members = write(tmp_path / "members.bin", [0, 2, 2], 3)
    assert members.document_numbers(2, [0, 1]).tolist() == [4, 7]
    assert members.document_numbers([[2, 0]], [[1, 0]]).tolist() == [[7, 1]]
    for cluster, document in ((1, 0), (3, 0), (-1, 0), (0, 1), (0, -1)):
        with pytest.raises(InputError, match=f"cluster {cluster} has no document {document}"):
            members.document_numbers([0, cluster], [0, document])


def test_a_torn_long_or_changed_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "members.bin"
    write(path, [0, 2, 2, 1, 0], 4)
    whole = path.read_bytes()
    header_and_offsets = 32 + 5 * 8
    for length in [*range(len(whole)), len(whole) + 1]:
        path.write_bytes((whole + b"\0")[:length])
        with pytest.raises(FormatError):
            Members(path)
    for byte in range(header_and_offsets):
        for bit in range(8):
            changed = bytearray(whole)
            changed[byte] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(FormatError):
                Members(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA and /proc are Linux")
def test_memory_is_bounded_while_writing_and_opening(tmp_path: Path) -> None:
    """Four million documents, 32 MB of numbers, under a limit that could not hold them."""
    code = f"""
import resource, numpy as np
from pathlib import Path
from dataforge.plans.members import write_members
used = int(open('/proc/self/statm').read().split()[5]) * resource.getpagesize()
limit = used + (12 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
def batches():
    for start in range(0, 4_000_000, 1 << 16):
        numbers = np.arange(start, min(start + (1 << 16), 4_000_000))
        yield numbers, numbers * 7919 % 100
members = write_members(Path({str(tmp_path / "members.bin")!r}), 100, batches)
assert members.num_documents == 4_000_000
assert members.document_numbers([99], [0]).tolist() == [int(np.flatnonzero(np.arange(100) * 7919 % 100 == 99)[0])]
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
