"""The loader: the same rows from a folder and from a server, for every share, from every place, each once."""

import gc
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_server import serving
from tiny_rows import make_chain

from dataforge.errors import ConfigError, PastTheEnd, StreamError, UnknownName
from dataforge.rows import Rows
from dataforge.streams import Loader, batches, local

L = 16


def _read(loader, steps=None):
    """Some batches, as (token ids, segments, cursor) in plain lists."""
    out = []
    for batch in loader:
        out.append((batch.token_ids.tolist(), batch.segments.tolist(), batch.cursor))
        if steps is not None and len(out) == steps:
            break
    return out


def _sources(artifact, server):
    return [artifact.path, server.url]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_folder_and_server_give_the_same_batches_and_their_union_is_the_rows(
    chain, artifact, steady, world_size, hasty
):
    rows = Rows(artifact)
    found: dict[int, Any] = {}
    segments: dict[int, Any] = {}
    for rank in range(world_size):
        share = {"rank": rank, "world_size": world_size, "global_batch": 12}
        with Loader(artifact.path, **share) as near, Loader(steady.url, **share, remote=hasty) as far:
            one, two = _read(near), _read(far)
        assert one == two
        assert len(one) == -(-rows.num_rows // 12)
        for ids, table, _ in one:
            numbers = list(dict.fromkeys(entry[0] for entry in table))
            for row, row_ids in zip(numbers, ids, strict=True):
                assert row not in found, "a row came twice"
                found[row] = row_ids
            for entry in table:
                segments.setdefault(entry[0], []).append(entry)
    assert found == {row: chain.row(row, L) for row in range(rows.num_rows)}
    assert segments == {row: rows.segments(row).tolist() for row in range(rows.num_rows)}


@pytest.mark.parametrize("way", ["folder", "server"])
def test_world_size_and_batch_may_change_at_every_step(chain, artifact, steady, way, hasty):
    source = artifact.path if way == "folder" else steady.url
    schedule = [(1, 8, 2), (3, 10, 3), (8, 24, 1), (2, 7, 5), (5, 3, 2), (1, 64, 9)]  # world, batch, steps
    cursor, seen = 0, []
    for world_size, global_batch, steps in schedule:
        states, rows = set(), []
        for rank in range(world_size):
            share: Any = {"rank": rank, "world_size": world_size, "global_batch": global_batch}
            with Loader(source, cursor=cursor, **share, remote=hasty) as loader:
                for ids, _, _ in _read(loader, steps):
                    rows += ids
                states.add(json.dumps(loader.state_dict()))
        assert len(states) == 1
        cursor = json.loads(states.pop())["cursor"]
        seen += sorted(rows)
    expected = [chain.row(row, L) for row in range(cursor)]
    assert sorted(seen) == sorted(expected)
    assert cursor == Rows(artifact).num_rows  # the schedule runs to the end


@pytest.mark.parametrize("way", ["folder", "server"])
def test_regroup_goes_on_at_the_same_row(chain, artifact, steady, way, hasty):
    with Loader(artifact.path if way == "folder" else steady.url, global_batch=8, remote=hasty) as loader:
        seen = [row for ids, _, _ in _read(loader, 3) for row in ids]
        loader.regroup(global_batch=20)
        seen += [row for ids, _, _ in _read(loader, 2) for row in ids]
        loader.regroup(rank=1, world_size=2)
        (ids, _, cursor) = _read(loader, 1)[0]
        assert (len(seen), cursor) == (64, 84)
        assert seen + [chain.row(row, L) for row in range(64, 74)] + ids == [chain.row(row, L) for row in range(84)]


@pytest.mark.parametrize("way", ["folder", "server"])
@pytest.mark.parametrize("at", [0, 1, 5, 46])
def test_a_saved_state_goes_on_with_the_next_batch(artifact, steady, way, at, hasty):
    source = artifact.path if way == "folder" else steady.url
    with Loader(source, global_batch=12, remote=hasty) as loader:
        whole = _read(loader)
    with Loader(source, global_batch=12, remote=hasty) as loader:
        head = _read(loader, at) if at else []
        state = json.loads(json.dumps(loader.state_dict()))
    assert len(json.dumps(state)) <= 512
    with Loader(source, global_batch=12, remote=hasty) as loader:
        loader.load_state_dict(state)
        assert head + _read(loader) == whole


def test_the_state_moves_when_a_batch_is_handed_out_not_when_it_is_read_ahead(artifact):
    with Loader(artifact.path, global_batch=4) as loader:
        assert loader.state_dict()["cursor"] == 0
        for step, batch in zip(range(1, 6), loader, strict=False):
            assert loader.state_dict()["cursor"] == batch.cursor == 4 * step == loader.cursor


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_saving_and_changing_shares_at_any_step_never_loses_or_repeats_a_row(artifact, data):
    """A model: the state is a cursor, and whatever happens the rows handed out are the interval it passed."""
    state: Any = None
    handed: list[int] = []
    with Loader(artifact.path, global_batch=1) as fresh:
        num_rows = fresh.num_rows
    for _ in range(data.draw(st.integers(1, 5))):
        world_size, global_batch = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 90))
        steps = data.draw(st.integers(0, 4))
        states = []
        for rank in range(world_size):
            with Loader(artifact.path, rank=rank, world_size=world_size, global_batch=global_batch) as loader:
                if state is not None:
                    loader.load_state_dict(state)
                taken = min(steps, len(loader))
                for ids, table, _ in _read(loader, taken) if taken else []:
                    handed += list(dict.fromkeys(entry[0] for entry in table))
                    assert len(ids) == len({entry[0] for entry in table})
                states.append(loader.state_dict())
        assert all(told == states[0] for told in states)
        state = states[0]
        assert sorted(handed) == list(range(state["cursor"]))
    assert state["cursor"] <= num_rows


def test_states_of_other_rows_and_malformed_ones_are_refused(chain, artifact, steady, hasty):
    with Loader(artifact.path, global_batch=4) as loader:
        _read(loader, 2)
        state = loader.state_dict()
    for source in (chain.pack(17).path, artifact.path, steady.url):
        with Loader(source, global_batch=4, remote=hasty) as loader:
            if source != artifact.path and source != steady.url:
                with pytest.raises(StreamError, match=r"the state is of [0-9a-f]{12}"):
                    loader.load_state_dict(state)
            malformed: list[Any] = [
                None,
                [],
                {},
                {**state, "cursor": -1},
                {**state, "cursor": 10**9},
                {**state, "cursor": 1.0},
                {**state, "cursor": True},
                {**state, "version": 2},
                {**state, "more": 1},
                {**state, "rows": 5},
                {name: told for name, told in state.items() if name != "rows"},
            ]
            for wrong in malformed:
                with pytest.raises(StreamError):
                    loader.load_state_dict(wrong)
            assert loader.cursor == 0


def test_asking_past_the_end_raises_before_training_starts(artifact, steady, hasty):
    for source in _sources(artifact, steady):
        num_rows = Rows(artifact).num_rows
        past: list[Any] = [{"cursor": num_rows + 1}, {"cursor": -1}, {"steps": num_rows // 10 + 2}, {"steps": -1}]
        for wrong in past:
            with pytest.raises(PastTheEnd):
                Loader(source, global_batch=10, remote=hasty, **wrong)
        with Loader(source, global_batch=10, cursor=num_rows, remote=hasty) as loader:
            assert (_read(loader), len(loader)) == ([], 0)
        with Loader(source, global_batch=10, steps=-(-num_rows // 10), remote=hasty) as loader:
            assert len(_read(loader)) == -(-num_rows // 10)


@pytest.mark.parametrize("way", ["folder", "server"])
def test_steps_bound_the_run_through_states_and_other_batches(chain, artifact, steady, way, hasty):
    source = artifact.path if way == "folder" else steady.url
    with Loader(source, global_batch=8, steps=5, remote=hasty) as loader:
        assert len(loader) == 5
        head = _read(loader, 2)
        state = loader.state_dict()
        assert len(loader) == 3
    with Loader(source, global_batch=8, steps=5, remote=hasty) as loader:
        loader.load_state_dict(state)
        loader.regroup(global_batch=10)
        tail = _read(loader)
    assert [len(ids) for ids, _, _ in tail] == [10, 10, 4]
    assert [row for ids, _, _ in head + tail for row in ids] == [chain.row(row, L) for row in range(40)]
    with (
        Loader(source, global_batch=8, steps=1, remote=hasty) as loader,
        pytest.raises(PastTheEnd, match="this loader ends at row 8"),
    ):
        loader.load_state_dict(state)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint32", "uint16"])
def test_every_token_type_holds_the_same_ids(artifact, steady, dtype, hasty):
    with Loader(artifact.path, global_batch=50) as loader:
        expected = _read(loader)
    for source in _sources(artifact, steady):
        with Loader(source, global_batch=50, dtype=dtype, remote=hasty) as loader:
            batch = next(loader)
            assert batch.token_ids.dtype == dtype
            assert batch.segments.dtype == np.int64
            assert [(batch.token_ids.tolist(), batch.segments.tolist(), batch.cursor), *_read(loader)] == expected


def test_wide_vocabularies_are_streamed_and_do_not_fit_uint16(tmp_path, hasty):
    chain = make_chain(tmp_path, vocab_size=90_000)
    artifact = chain.pack(L)
    with serving(Rows(artifact)) as server:
        for source in _sources(artifact, server):
            with Loader(source, global_batch=20, remote=hasty) as loader:
                found = [row for ids, _, _ in _read(loader) for row in ids]
            assert found == [chain.row(row, L) for row in range(len(found))]
            assert max(map(max, found)) > 65_535
            with pytest.raises(ConfigError, match="do not fit uint16"):
                Loader(source, global_batch=20, dtype="uint16", remote=hasty)


def test_misuse_is_refused_with_the_reason(artifact):
    for wrong, kind in (
        ({"global_batch": 0}, ConfigError),
        ({"global_batch": 4, "rank": 1}, ConfigError),
        ({"global_batch": 4, "dtype": "float32"}, UnknownName),
    ):
        with pytest.raises(kind):
            Loader(artifact.path, **wrong)
    with pytest.raises(ConfigError, match="no rows artifact"):
        Loader(artifact.input("plan").path, global_batch=4)
    loader = Loader(artifact.path, global_batch=4)
    loader.close()
    loader.close()
    with pytest.raises(StreamError, match="closed"):
        next(loader)


def test_batches_may_be_kept_for_ever(chain, artifact, monkeypatch):
    """Memory is used again only when nobody looks at it: kept batches stay as they were."""
    monkeypatch.setattr(local, "CHUNK_BYTES", 4096)
    with Loader(artifact.path, global_batch=3, prefetch_bytes=1) as loader:
        kept = [batch.token_ids if step % 2 else batch.token_ids[1:] for step, batch in enumerate(loader)]
    found = [ids.tolist() for ids in kept]
    expected = [
        [chain.row(row, L) for row in range(first, min(first + 3, loader.num_rows))]
        for first in range(0, loader.num_rows, 3)
    ]
    assert found == [rows if step % 2 else rows[1:] for step, rows in enumerate(expected)]


def test_memory_is_used_again_once_batches_are_gone():
    buffers = batches.Buffers(kept=3)
    first = buffers.take((4, 5), np.dtype(np.int64))
    address = first.ctypes.data
    view = first[1:2, 2:]
    del first
    assert buffers.take((4, 5), np.dtype(np.int64)).ctypes.data != address  # `view` still looks at it
    del view
    assert buffers.take((2, 5), np.dtype(np.int64)).ctypes.data == address


def test_nothing_is_left_over(artifact, steady, hasty):
    def held():
        gc.collect()
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _there(fd)]
        return sorted(link for link in links if "socket" in link or "rows" in link or "shards" in link)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    before, threads = held(), threading.active_count()
    for source in _sources(artifact, steady):
        for steps in (0, 1, None):
            loader = Loader(source, global_batch=5, remote=hasty)
            if steps != 0:
                _read(loader, steps)
            if steps == 1:
                loader.close()
            del loader  # the others are closed by going away
            gc.collect()
    mine = [t.name for t in threading.enumerate() if t.name == "dataforge-prefetch"]
    assert mine == []
    assert threading.active_count() <= threads + 8  # the server's own, one a connection
    left = [link for link in held() if "socket" not in link]
    assert left == [link for link in before if "socket" not in link]


def _there(fd):
    try:
        os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    return True


def test_a_pickled_loader_goes_on_in_another_process(artifact, steady, hasty):
    for source in _sources(artifact, steady):
        with Loader(source, global_batch=12, remote=hasty) as loader:
            _read(loader, 3)
            copy = pickle.loads(pickle.dumps(loader))
            with copy:
                assert _read(copy) == _read(loader)
    with Loader(artifact.path, global_batch=12) as loader:
        _read(loader, 3)
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            assert pool.apply(_read, (loader, 2)) == _read(loader, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_parent_and_child_both_go_on(artifact, steady, hasty):
    for source in _sources(artifact, steady):
        with Loader(source, global_batch=12, remote=hasty) as loader:
            _read(loader, 2)
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:  # pragma: no cover
                try:
                    os.write(writer, json.dumps(_read(loader, 3)).encode())
                finally:
                    os._exit(0)
            os.close(writer)
            with os.fdopen(reader, "rb") as pipe:
                told = json.loads(pipe.read())
            os.waitpid(child, 0)
            assert [tuple(batch) for batch in told] == [tuple(json.loads(json.dumps(b))) for b in _read(loader, 3)]


def test_a_loader_needs_numpy_alone(artifact, steady):
    """No pyarrow, no torch, no xxhash, no `_native`: as on a machine that only trains."""
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked} or name == "dataforge._native":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import hashlib
from dataforge.streams import Loader
for source in sys.argv[1:]:
    digest = hashlib.sha256()
    with Loader(source, global_batch=7) as loader:
        for batch in loader:
            digest.update(batch.token_ids.tobytes() + batch.segments.tobytes())
    print(digest.hexdigest())
files = {{name.split(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}}
third_party = {{name for name, file in files.items() if "site-packages" in file}}
print(sorted(third_party - {{"dataforge", "numpy"}}))
"""
    names = ["pyarrow", "torch", "xxhash", "regex", "click", "rich", "ray", "faiss", "fastapi", "triton"]
    sources = [str(source) for source in _sources(artifact, steady)]
    done = subprocess.run(
        [sys.executable, "-c", code.format(blocked=names), *sources], capture_output=True, text=True, check=True
    )
    near, far, rest = done.stdout.splitlines()
    assert near == far
    assert [name for name in eval(rest) if not name.startswith("_")] == []
