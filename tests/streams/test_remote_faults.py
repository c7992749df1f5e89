"""Faults on the way: the loader gives the rows bit for bit, or a stated error; never other rows, never a hang."""

import contextlib
import json
import random
import socket
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from row_server import serving
from tiny_rows import make_chain

from dataforge.errors import (
    AccessDenied,
    ArtifactNotFound,
    ChecksumMismatch,
    ConfigError,
    DataforgeError,
    FormatError,
    PastTheEnd,
    StreamError,
)
from dataforge.rows import Rows
from dataforge.streams import Loader, RemoteConfig, windows
from dataforge.streams.frames import FrameType, Header, json_frame
from dataforge.streams.prefetch import Prefetcher
from dataforge.streams.problems import problem_of


@pytest.fixture(scope="session")
def expected(artifact):
    """All batches, read from the folder."""
    with Loader(artifact.path, global_batch=12) as loader:
        return [(batch.token_ids.tolist(), batch.segments.tolist()) for batch in loader]


def _stream(server, config, **options):
    with Loader(server.url, global_batch=12, remote=config, **options) as loader:
        return [(batch.token_ids.tolist(), batch.segments.tolist()) for batch in loader]


# -- faults that pass: each takes (handler, body, headers) and answers in its own way


def reset_before_the_head(handler, body, headers):
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    socket.close(handler.connection.detach())
    return True


def hang_up_before_the_head(handler, body, headers):
    handler.close_connection = True
    return True


def _cut(share):
    def cut(handler, body, headers):
        handler.answer(body[: int(len(body) * share)], headers)
        handler.wfile.flush()
        handler.close_connection = True
        return True

    return cut


def cut_before_the_end_frame(handler, body, headers):
    handler.answer(body[:-64], headers)
    handler.close_connection = True
    return True


def end_early_with_a_true_length(handler, body, headers):
    handler.answer(body[:-64], headers | {"content-length": str(len(body) - 64)})
    return True


def _flip(at):
    def flip(handler, body, headers):
        data = bytearray(body)
        data[int(at * (len(body) - 1))] ^= 0x10
        handler.answer(bytes(data), headers)
        return True

    return flip


def silence_in_the_middle(handler, body, headers):
    handler.answer(body[: len(body) // 2], headers)
    handler.wfile.flush()
    time.sleep(0.3)
    handler.close_connection = True
    return True


def silence_before_the_head(handler, body, headers):
    time.sleep(0.3)
    handler.close_connection = True
    return True


def dribble(handler, body, headers):
    """A byte now and then, never silent for long: only the window's own deadline ends it."""
    handler.answer(b"", headers)
    with contextlib.suppress(OSError):
        for i in range(100):
            handler.wfile.write(body[i : i + 1])
            handler.wfile.flush()
            time.sleep(0.05)
    handler.close_connection = True
    return True


def _status(status, headers=()):
    def answer(handler, body, _):
        handler.send_response(status)
        handler.send_header("content-length", "9")
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"try again")
        return True

    return answer


def going_away(handler, body, headers):
    frame = json_frame(FrameType.GOAWAY, {}, sequence=1, rows_digest=Header.unpack(body[:64], "").rows_digest)
    meta = 64 + Header.unpack(body[:64], "").body_bytes
    handler.answer(body[:meta] + frame, headers)
    handler.close_connection = True
    return True


def close_after_a_whole_answer(handler, body, headers):
    handler.answer(body, headers | {"connection": "close"})
    handler.close_connection = True
    return True


def two_answers_for_one_request(handler, body, headers):
    handler.answer(body, headers)
    handler.answer(body, headers)
    return True


def not_http(handler, body, headers):
    handler.wfile.write(b"\x16\x03\x01\x02\x00" * 20 + b"\r\n\r\n")
    handler.close_connection = True
    return True


def one_byte_less(handler, body, headers):
    handler.answer(body[:-1], headers | {"content-length": str(len(body) - 1)})
    return True


def one_byte_more(handler, body, headers):
    handler.answer(body + b"x", headers | {"content-length": str(len(body) + 1)})
    return True


PASSING = [
    reset_before_the_head,
    hang_up_before_the_head,
    _cut(0.01),
    _cut(0.5),
    _cut(0.99),
    cut_before_the_end_frame,
    end_early_with_a_true_length,
    silence_in_the_middle,
    silence_before_the_head,
    dribble,
    going_away,
    close_after_a_whole_answer,
    two_answers_for_one_request,
    not_http,
    one_byte_less,
    one_byte_more,
    *(_status(status) for status in (408, 425, 429, 500, 502, 503, 504)),
    _status(503, [("retry-after", "0")]),
    _status(503, [("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]),
    *(_flip(at) for at in (0, 0.02, 0.1, 0.3, 0.6, 0.9, 0.995, 1)),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_fault_that_passes_changes_nothing(server, hasty, expected, fault, at):
    """`at` 0 hits the loader's first question, the others a window in the middle."""
    server.faults = [*[None] * at, fault]
    if fault is dribble:
        hasty = replace(hasty, window_timeout_s=0.2)
    if fault in (silence_before_the_head, silence_in_the_middle):
        hasty = replace(hasty, read_timeout_s=0.15)
    assert _stream(server, hasty) == expected
    assert server.faults == []


@pytest.mark.parametrize("seed", range(6))
def test_a_storm_of_faults_changes_nothing(server, hasty, expected, seed):
    rng = random.Random(seed)
    quick = [fault for fault in PASSING if fault not in (dribble, silence_before_the_head, silence_in_the_middle)]
    server.faults = [rng.choice(quick) if rng.random() < 0.4 else None for _ in range(60)]
    flips = {fault for fault in quick if fault.__name__ == "flip"}
    for i in range(1, len(server.faults)):  # damage that comes again and again is an error of its own: see below
        if server.faults[i] in flips and server.faults[i - 1] is not None:
            server.faults[i] = None
    config = replace(hasty, in_flight=rng.choice([1, 2, 5]), window_tokens=rng.choice([100, 1000, 5000]))
    assert _stream(server, config) == expected


def test_damage_that_does_not_pass_is_named(server, hasty):
    server.faults = [None, *[_flip(0.6)] * 50]
    with pytest.raises((ChecksumMismatch, FormatError)) as caught:
        _stream(server, replace(hasty, in_flight=1))
    assert "127.0.0.1" in str(caught.value.where)
    assert len(server.requests) <= 7


def test_a_server_that_stays_away_ends_in_a_stated_error_within_the_budget(server, hasty, expected):
    server.faults = [None, None, *[hang_up_before_the_head] * 10_000]
    began = time.monotonic()
    with Loader(server.url, global_batch=12, remote=replace(hasty, retry_budget_s=0.5)) as loader:
        seen: list[Any] = []
        with pytest.raises(StreamError, match=r"no window came whole in [\d,]+ tries"):
            seen += [batch.token_ids.tolist() for batch in _keeping(loader, seen)]
        assert time.monotonic() - began < 3
        server.faults = []  # it is back: the same loader goes on at the same row
        seen += [batch.token_ids.tolist() for batch in loader]
    assert seen == [ids for ids, _ in expected]


def _keeping(loader, seen):
    for batch in loader:
        seen.append(batch.token_ids.tolist())
    return []


def test_nobody_listening_is_a_stated_error(hasty):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1/rows/x"
        with pytest.raises(StreamError, match="ConnectionRefusedError"):
            Loader(url, global_batch=4, remote=replace(hasty, retry_budget_s=0.05))


def test_a_server_that_never_answers_is_given_up(hasty):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/rows/x"
        began = time.monotonic()
        with pytest.raises(StreamError, match="tries"):
            Loader(url, global_batch=4, remote=replace(hasty, read_timeout_s=0.05, retry_budget_s=0.2))
        assert time.monotonic() - began < 3


# -- refusals that do not pass


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_missing_or_wrong_key_is_refused_at_once(artifact, hasty, key):
    with serving(Rows(artifact), key="right") as server:
        with pytest.raises(AccessDenied, match="no key, or a wrong one"):
            Loader(server.url, global_batch=4, api_key=key, remote=hasty)
        assert len(server.requests) == 1
        with Loader(server.url, global_batch=4, api_key="right", remote=hasty) as loader:
            next(loader)


@pytest.mark.parametrize("key", ["a b", "a\r\nX-Evil: 1", "ключ", ""])
def test_keys_that_no_header_can_hold_are_not_sent(server, hasty, key):
    if key == "":
        with Loader(server.url, global_batch=4, api_key=key, remote=hasty):
            return
    with pytest.raises(ConfigError, match="characters that no key has"):
        Loader(server.url, global_batch=4, api_key=key, remote=hasty)
    assert server.requests == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ArtifactNotFound("no such rows"), ArtifactNotFound),
        (PastTheEnd("past the end"), PastTheEnd),
        (ConfigError("wrong"), ConfigError),
        (StreamError("closed for ever"), StreamError),
    ],
)
def test_a_refusal_is_raised_as_what_it_is(server, hasty, error, kind):
    def refuse(handler, body, headers):
        handler.problem(error)
        return True

    server.faults = [refuse] * 1000
    with pytest.raises(kind, match=error.what):
        Loader(server.url, global_batch=4, remote=replace(hasty, retry_budget_s=0.05))


def test_an_error_frame_is_raised_as_what_it_tells(server, hasty):
    def error_frame(handler, body, headers):
        head = Header.unpack(body[:64], "")
        frame = json_frame(
            FrameType.ERROR,
            problem_of(ChecksumMismatch("page 3 of part-00000.tok", where="shards/x", hint="make it again")),
            sequence=1,
            rows_digest=head.rows_digest,
        )
        handler.answer(body[: 64 + head.body_bytes] + frame, headers)
        handler.close_connection = True
        return True

    server.faults = [None, *[error_frame] * 50]
    with pytest.raises(ChecksumMismatch, match=r"page 3 of part-00000\.tok"):
        _stream(server, hasty)


@pytest.mark.parametrize(
    "change",
    [
        {"content-type": "text/html"},
        {"content-type": "application/vnd.dataforge.rows;v=2"},
        {"content-encoding": "gzip"},
        {"transfer-encoding": "chunked"},
        {"content-length": "99999999999999"},
        {"content-length": "-5"},
        {"content-length": "1e3"},
        {"content-length": ""},
    ],
)
def test_answers_of_another_form_are_refused(server, hasty, change):
    def answer(handler, body, headers):
        handler.answer(body, headers | change)
        handler.close_connection = True
        return True

    server.faults = [answer] * 1000
    with pytest.raises(DataforgeError):
        Loader(server.url, global_batch=4, remote=replace(hasty, retry_budget_s=0.1))


@pytest.mark.parametrize("status", [301, 302, 307, 308, 204, 304, 418])
def test_redirects_and_other_answers_are_not_followed(server, hasty, status):
    def answer(handler, body, headers):
        handler.send_response(status)
        handler.send_header("location", "http://169.254.169.254/latest/meta-data")
        handler.send_header("content-length", "0")
        handler.end_headers()
        return True

    server.faults = [answer] * 10
    with pytest.raises(StreamError, match=f"status {status}"):
        Loader(server.url, global_batch=4, remote=hasty)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1/rows/a",
        "http:///v1/rows/a",
        "http://host",
        "http://host/",
        "http://user:pw@host/v1/rows/a",
        "http://host/v1/rows/a?x=1",
        "http://host/v1/rows/a#b",
        "http://host:99999/v1/rows/a",
        "file:///etc/passwd",
    ],
)
def test_urls_that_lead_to_no_rows_are_refused(url):
    with pytest.raises(ConfigError, match="is no URL of rows"):
        Loader(url, global_batch=4)


def _meta(**change):
    def answer(handler, body, headers):
        head = Header.unpack(body[:64], "")
        told = json.loads(body[64 : 64 + head.body_bytes]) | change
        frame = json_frame(FrameType.META, told, sequence=0, rows_digest=head.rows_digest)
        whole = frame + body[64 + head.body_bytes :]
        handler.answer(whole, headers | {"content-length": str(len(whole))})
        return True

    return answer


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "f" * 64},
        {"rows": 5},
        {"num_rows": -1},
        {"num_rows": 1.5},
        {"num_rows": True},
        {"row_length": 0},
        {"item_bytes": 3},
        {"item_bytes": 4},
        {"vocab_size": 0},
        {"vocab_size": 2**40},
    ],
)
def test_a_meta_frame_that_describes_no_rows_is_refused(server, hasty, change):
    server.faults = [_meta(**change)] * 10
    with pytest.raises(FormatError):
        Loader(server.url, global_batch=4, remote=hasty)


def test_another_artifact_behind_the_same_url_is_noticed(server, hasty, tmp_path):
    other = Rows(make_chain(tmp_path, seed=5).pack(16))
    with Loader(server.url, global_batch=12, remote=replace(hasty, in_flight=1)) as loader:
        next(loader)
        server.rows = other
        with pytest.raises(StreamError, match="the server now gives rows"):
            _keeping(loader, [])


def test_frames_of_the_right_form_with_wrong_rows_are_refused(server, hasty):
    """A cache or server that mixes windows up: sound checksums, sound frames, other rows than were asked for."""

    def other_window(handler, body, headers):
        path = handler.path.replace("cursor=", "cursor=1")
        window = windows.Window(handler.server.rows, windows.WindowRequest.of_query(_query(path)))
        other = b"".join(window.frames())
        handler.answer(other, headers | {"content-length": str(len(other))})
        return True

    server.faults = [None, *[other_window] * 10]
    with pytest.raises(FormatError, match="does not describe the"):
        _stream(server, replace(hasty, window_tokens=1))


def _query(path):
    return dict(pair.split("=") for pair in path.split("?")[1].split("&"))


def test_windows_too_large_for_the_server_are_asked_for_in_smaller_ones(server, expected, monkeypatch):
    monkeypatch.setattr(windows, "MAX_WINDOW_BYTES", 12 * 34 * 3 + 2000)
    assert _stream(server, RemoteConfig()) == expected
    monkeypatch.setattr(windows, "MAX_WINDOW_BYTES", 100)
    with pytest.raises(ConfigError, match="the window would hold"):
        _stream(server, RemoteConfig())


def test_a_loader_that_is_closed_while_it_waits_ends_soon(server, hasty):
    def wait(handler, body, headers):
        time.sleep(1.5)
        handler.close_connection = True
        return True

    server.faults = [None, *[wait] * 10]
    loader = Loader(server.url, global_batch=12, remote=replace(hasty, read_timeout_s=60, window_timeout_s=60))
    errors = []

    def read():
        try:
            next(loader)
        except DataforgeError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    loader.close()
    thread.join(5)
    assert time.monotonic() - began < 1
    assert len(errors) == 1


def test_a_stall_is_a_stated_error_that_says_where_the_reader_stands():
    class Stuck:
        def __init__(self):
            self.stop = threading.Event()

        def __next__(self):
            self.stop.wait(10)
            raise StopIteration

        def abort(self):
            self.stop.set()

    prefetcher = Prefetcher(Stuck(), budget_bytes=1, stall_timeout_s=0.1, where="rows/x")
    with pytest.raises(StreamError, match=r"no batch came for 0 s; the reader stands at: .*wait"):
        prefetcher.next_chunk()
    prefetcher.close()


def test_read_ahead_is_bounded_in_bytes(artifact, server, hasty):
    with Loader(server.url, global_batch=2, remote=replace(hasty, window_tokens=40), prefetch_bytes=3000) as loader:
        for handed_out in range(1, 5):
            next(loader)
            time.sleep(0.1)
            # of 280 windows: what was handed out and what waits, one held, two in flight, and the first question
            assert len(server.requests) <= handed_out + 3000 // 400 + 4


@pytest.mark.parametrize("change", [{"window_tokens": 0}, {"in_flight": 0}, {"read_timeout_s": 0}, {"in_flight": 65}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ConfigError):
        RemoteConfig(**change)
