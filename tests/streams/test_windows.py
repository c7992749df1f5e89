"""Windows: a pure function of the request, of known length, refused before the first byte where they cannot be made."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_rows import make_chain

from dataforge.errors import ChecksumMismatch, ConfigError, DataforgeError, PastTheEnd, UnknownName
from dataforge.rows import Rows
from dataforge.streams import windows
from dataforge.streams.frames import FrameType, Header
from dataforge.streams.problems import error_of, problem_of
from dataforge.streams.windows import Window, WindowRequest


def _frames(window):
    """Headers and bodies of a window's frames."""
    out = []
    for frame in window.frames():
        data = bytes(frame)
        header = Header.unpack(data[:64], "here")
        assert header.body_bytes == len(data) - 64
        out.append((header, data[64:]))
    return out


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_windows_of_all_ranks_hold_the_rows_once(chain, artifact, world_size, monkeypatch):
    monkeypatch.setattr(windows, "FRAME_BYTES", 200)  # five rows of 34 bytes
    rows = Rows(artifact)
    found = {}
    for rank in range(world_size):
        request = WindowRequest(cursor=9, steps=4, global_batch=10, rank=rank, world_size=world_size)
        window = Window(rows, request)
        told = _frames(window)
        assert sum(64 + len(body) for _, body in told) == window.content_length
        assert [header.type for header, _ in told] == [
            FrameType.META,
            *[FrameType.DATA] * (len(told) - 2),
            FrameType.END,
        ]
        assert [header.sequence for header, _ in told] == list(range(len(told)))
        meta = json.loads(told[0][1])
        assert (meta["rows"], meta["num_rows"], meta["next_cursor"]) == (rows.digest, rows.num_rows, 49)
        for header, body in told[1:-1]:
            segments = np.frombuffer(body[: header.table_bytes], "<i8").reshape(-1, 4)
            token_ids = np.frombuffer(body[header.table_bytes :], "<u2").reshape(header.num_rows, 17)
            for row, ids in zip(np.unique(segments[:, 0]).tolist(), token_ids.tolist(), strict=True):
                assert row not in found
                found[row] = ids
                assert segments[segments[:, 0] == row].tolist() == rows.segments(row).tolist()
        assert (told[-1][0].num_rows, told[-1][0].first_row) == (meta["window_rows"], 49)
    assert found == {row: chain.row(row, 16) for row in range(9, 49)}


def test_the_same_request_gives_the_same_bytes_and_tag(artifact):
    request = WindowRequest(cursor=5, steps=3, global_batch=7)
    one, two = Window(Rows(artifact), request), Window(Rows(artifact), request)
    assert [bytes(frame) for frame in one.frames()] == [bytes(frame) for frame in two.frames()]
    assert [bytes(frame) for frame in one.frames()] == [bytes(frame) for frame in one.frames()]
    assert one.etag == two.etag != Window(Rows(artifact), WindowRequest(cursor=5, steps=3, global_batch=8)).etag
    assert int(one.headers()["content-length"]) == one.content_length


def test_no_steps_give_meta_and_end_even_at_the_last_row(artifact):
    rows = Rows(artifact)
    for cursor in (0, rows.num_rows):
        told = _frames(Window(rows, WindowRequest(cursor=cursor, steps=0, global_batch=1)))
        assert [header.type for header, _ in told] == [FrameType.META, FrameType.END]


def test_steps_past_the_end_are_refused_and_a_short_last_step_is_not(artifact):
    rows = Rows(artifact)
    last = rows.num_rows - 3
    assert Window(rows, WindowRequest(cursor=last, steps=1, global_batch=10)).num_rows == 3
    for cursor, steps in ((last, 2), (rows.num_rows, 1), (rows.num_rows + 1, 0), (10**17, 1)):
        with pytest.raises(PastTheEnd, match=r"steps are left|there are"):
            Window(rows, WindowRequest(cursor=cursor, steps=steps, global_batch=10))


def test_windows_that_are_too_large_are_refused_before_they_are_made(artifact, monkeypatch):
    rows = Rows(artifact)
    Window(rows, WindowRequest(cursor=0, steps=50, global_batch=10))
    for most in (500 * 34 - 1, 500 * 34 + 10_000):  # tokens alone; tokens with segments
        monkeypatch.setattr(windows, "MAX_WINDOW_BYTES", most)
        with pytest.raises(ConfigError, match="the window would hold"):
            Window(rows, WindowRequest(cursor=0, steps=50, global_batch=10))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("cursor", value) for value in ("-1", "1e3", "٣", "9" * 30, "", " 1", None)],
        *[("steps", value) for value in ("4097", "1.0", None)],
        *[("global_batch", value) for value in ("0", "99999999999", None)],
        *[("rank", value) for value in ("2", "-1")],
        *[("world_size", value) for value in ("0", "99999999")],
        ("cursr", "1"),
    ],
)
def test_malformed_queries_are_refused(name, value):
    query = {"cursor": "0", "steps": "1", "global_batch": "4", "rank": "1", "world_size": "2"}
    WindowRequest.of_query(query)
    query = {key: told for key, told in (query | {name: value}).items() if told is not None}
    with pytest.raises((ConfigError, UnknownName)):
        WindowRequest.of_query(query)


@given(
    cursor=st.integers(0, 10**17),
    steps=st.integers(0, 4096),
    global_batch=st.integers(1, 1 << 24),
    rank=st.integers(0, 9),
)
def test_a_request_survives_its_own_query(cursor, steps, global_batch, rank):
    request = WindowRequest(cursor=cursor, steps=steps, global_batch=global_batch, rank=rank, world_size=10)
    pairs = dict(pair.split("=") for pair in request.query().split("&"))
    assert WindowRequest.of_query(pairs) == request


def test_damage_is_told_before_the_first_byte(tmp_path):
    chain = make_chain(tmp_path)
    rows = Rows(chain.pack(16))
    path = chain.shards.path / "part-00000.tok"
    data = bytearray(path.read_bytes())
    data[4096] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumMismatch):
        Window(rows, WindowRequest(cursor=0, steps=1, global_batch=rows.num_rows))


def test_an_error_midway_becomes_an_error_frame_and_going_down_a_goaway(artifact, monkeypatch):
    monkeypatch.setattr(windows, "FRAME_BYTES", 200)
    window = Window(Rows(artifact), WindowRequest(cursor=0, steps=10, global_batch=10))
    calls = iter([False, False, True])
    told = [Header.unpack(bytes(frame)[:64], "") for frame in window.frames(lambda: next(calls))]
    assert [header.type for header in told] == [FrameType.META, FrameType.DATA, FrameType.DATA, FrameType.GOAWAY]

    gather, done = Rows.gather, []

    def failing(self, spans, out):
        done.append(0)
        if len(done) == 3:
            raise ChecksumMismatch("page 7 is not what it was", where="shards/x", hint="make it again")
        gather(self, spans, out)

    monkeypatch.setattr(Rows, "gather", failing)
    sent = [bytes(frame) for frame in window.frames()]
    header = Header.unpack(sent[-1][:64], "")
    assert (header.type, header.sequence, len(sent)) == (FrameType.ERROR, 3, 4)
    assert sum(map(len, sent)) < window.content_length
    error = error_of(json.loads(sent[-1][64:]), "http://there")
    assert isinstance(error, ChecksumMismatch)
    assert (error.what, error.hint) == ("page 7 is not what it was", "make it again")


def _classes(cls=DataforgeError):
    return [cls, *(c for child in cls.__subclasses__() for c in _classes(child))]


@pytest.mark.parametrize("cls", [c for c in _classes() if c.__module__ == "dataforge.errors"])
def test_every_error_crosses_the_wire_as_itself(cls):
    error = cls("what", where="where", hint="hint")
    back = error_of(json.loads(json.dumps(problem_of(error))), "http://there")
    assert type(back) is cls or cls is DataforgeError
    assert (back.what, back.hint) == ("what", "hint")
    assert "http://there" in str(back.where)
    assert "where" in str(back.where)


@pytest.mark.parametrize("problem", [None, 3, [], {}, {"type": 7, "detail": {"a": 1}}, {"type": "/problems/x" * 900}])
def test_a_malformed_problem_is_still_an_error(problem):
    assert "http://there" in str(error_of(problem, "http://there", 502).where)
