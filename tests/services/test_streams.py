"""Windows over HTTP: the bytes that `Window` makes, with limits, entity tags and answers to damage."""

import asyncio
import json
import shutil

import numpy as np
import pytest

from dataforge.corpus import Documents
from dataforge.rows import Rows
from dataforge.services.app import create_app
from dataforge.services.auth import Grant
from dataforge.services.settings import Settings
from dataforge.streams.frames import FrameType, Header
from dataforge.streams.windows import MAX_STEPS, Window, WindowRequest


def _path(ref="tiny", **query):
    told = {"cursor": 0, "steps": 2, "global_batch": 4} | query
    return f"/v1/rows/{ref}/window?" + "&".join(f"{name}={value}" for name, value in told.items())


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"steps": 0, "global_batch": 1},
        {"cursor": 3, "steps": 5, "global_batch": 7, "rank": 1, "world_size": 3},
        {"cursor": 1, "steps": 1, "global_batch": 3, "rank": 7, "world_size": 8},
        {"cursor": 0, "steps": 1, "global_batch": 100_000},
    ],
)
def test_a_window_is_what_the_window_function_gives_byte_for_byte(client, chain, query):
    rows = Rows(chain.rows)
    window = Window(rows, WindowRequest(**({"cursor": 0, "steps": 2, "global_batch": 4} | query)))
    for ref in ("tiny", chain.rows.id, f"tiny@{chain.rows.id}"):
        response = client.get(_path(ref, **query))
        assert response.status_code == 200, response.text
        assert response.content == b"".join(window.frames())
        assert int(response.headers["content-length"]) == len(response.content) == window.content_length
        assert response.headers["etag"] == window.etag
        assert not window.etag.startswith("W/")
        assert response.headers["content-type"] == window.headers()["content-type"]
        assert "content-encoding" not in response.headers
        head = client.head(_path(ref, **query))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == response.headers["content-length"]


def test_windows_by_id_may_be_kept_for_ever_and_windows_by_name_may_not(client, chain):
    assert "immutable" in client.get(_path(chain.rows.id)).headers["cache-control"]
    by_name = client.get(_path("tiny")).headers["cache-control"]
    assert "immutable" not in by_name
    assert "no-cache" in by_name


def test_a_window_that_is_known_is_not_sent_again(client, chain):
    etag = client.get(_path(chain.rows.id)).headers["etag"]
    for told in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        response = client.get(_path(chain.rows.id), headers={"if-none-match": told})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
        assert "content-length" not in response.headers
    for other in ('"x"', etag.strip('"'), ""):
        assert client.get(_path(chain.rows.id), headers={"if-none-match": other}).status_code == 200
    assert client.get(_path(chain.rows.id, cursor=1), headers={"if-none-match": etag}).status_code == 200


@pytest.mark.parametrize(
    ("query", "slug"),
    [
        ("", "config"),
        ("cursor=0&steps=1", "config"),
        ("cursor=-1&steps=1&global_batch=1", "config"),
        ("cursor=x&steps=1&global_batch=1", "config"),
        ("cursor=1.0&steps=1&global_batch=1", "config"),
        ("cursor=1e3&steps=1&global_batch=1", "config"),
        ("cursor=+1&steps=1&global_batch=1", "config"),
        ("cursor=%D9%A1&steps=1&global_batch=1", "config"),
        ("cursor=&steps=1&global_batch=1", "config"),
        ("cursor=0&cursor=0&steps=1&global_batch=1", "config"),
        ("cursor=0&steps=1&global_batch=1&x=1", "unknown-name"),
        ("cursor=0&steps=1&global_batch=0", "config"),
        (f"cursor=0&steps={MAX_STEPS + 1}&global_batch=1", "config"),
        ("cursor=0&steps=1&global_batch=99999999999", "config"),
        ("cursor=0&steps=1&global_batch=4&rank=2&world_size=2", "config"),
        ("cursor=0&steps=1&global_batch=4&rank=0&world_size=0", "config"),
        ("cursor=0&steps=1&global_batch=4&world_size=65537", "config"),
        ("cursor=999999999999999999&steps=1&global_batch=1", "past-the-end"),
        ("cursor=9999999999999999999&steps=1&global_batch=1", "config"),
        (f"cursor=0&steps={MAX_STEPS}&global_batch=1000", "past-the-end"),
        ("cursor=0&steps=1&global_batch=1&rank=" + "0" * 2000, "config"),
        ("%00=%ff", "unknown-name"),
    ],
)
def test_a_query_that_does_not_fit_is_refused_before_any_work(client, problem, query, slug):
    problem(client.get(f"/v1/rows/tiny/window?{query}"), 422, slug)


@pytest.mark.parametrize(
    ("ref", "status", "slug"),
    [("tini", 404, "artifact-not-found"), ("0" * 12, 404, "artifact-not-found"), ("Tiny", 422, "config")],
)
def test_rows_that_are_not_there_are_a_problem(client, problem, ref, status, slug):
    problem(client.get(_path(ref)), status, slug)


def _flip(path, place):
    """Change one bit, in a file of its own: the chain's parts may be linked."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))


def test_a_flipped_bit_in_a_shard_is_a_problem_that_names_the_part_and_mending_it_heals(own_chain, served, problem):
    shard = own_chain.shards.path / "part-00000.tok"
    sound = shard.read_bytes()
    _flip(shard, 4096 + 50)
    with served(own_chain.workspace) as client:
        for _ in range(2):
            told = problem(client.get(_path(global_batch=100)), 500, "checksum-mismatch")
            assert "part-00000.tok" in told["detail"]
            assert told["artifact"] == own_chain.shards.ref
            assert "--remake" in told["hint"]
        told = problem(client.get("/v1/rows/tiny/0"), 500, "checksum-mismatch")
        assert own_chain.shards.ref == told["artifact"]
        shard.unlink()
        shard.write_bytes(sound)
        assert client.get(_path(global_batch=100)).status_code == 200


def test_a_torn_row_index_is_a_problem_too(own_chain, served, problem):
    _flip(own_chain.rows.path / "index.rows", 70)
    with served(own_chain.workspace) as client:
        told = problem(client.get(_path()), 500, "checksum-mismatch")
        assert own_chain.rows.ref in told["artifact"]


def test_rows_that_were_removed_while_served_are_not_found(own_chain, served, problem):
    with served(own_chain.workspace) as client:
        assert client.get(_path(own_chain.rows.id)).status_code == 200
        shutil.rmtree(own_chain.rows.path)
        problem(client.get(_path(own_chain.rows.id)), 404, "artifact-not-found")


def test_only_so_many_rows_artifacts_are_held_open(own_chain, served):
    from dataforge.rows.pack import PackConfig, pack

    made = [own_chain.rows] + [
        pack(own_chain.workspace, own_chain.plan, own_chain.shards, name=f"l{n}", config=PackConfig(row_length=n))
        for n in (16, 32)
    ]
    with served(own_chain.workspace, max_open_rows=2) as client:
        for artifact in made * 2:
            meta = client.get(_path(artifact.id, steps=0)).content
            assert Header.unpack(meta[:64], "").type is FrameType.META
            assert json.loads(meta[64 : 64 + Header.unpack(meta[:64], "").payload_bytes])["id"] == artifact.id
        assert len(client.app.state.service.rows._held) == 2


class _Wire:
    """The two ends of one ASGI request, with a reader that can be slow or gone."""

    def __init__(self, app, query, key_id=None, reader_waits=None, gone_after=None):
        self.app, self.sent, self.waits = app, [], reader_waits
        self.gone_after = gone_after
        self.gone = asyncio.Event()
        self.scope = {
            "type": "http", "method": "GET", "path": "/v1/rows/tiny/window", "query_string": query.encode(),
            "headers": [(b"host", b"127.0.0.1")], "path_params": {"ref": "tiny"},
            "state": {"grant": Grant(key_id, frozenset({"rows:read"}))},
        }  # fmt: skip
        self.asked = False

    async def receive(self):
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if self.gone_after is not None and len(self.sent) >= self.gone_after:
            self.gone.set()
            await asyncio.sleep(0)
        if self.waits is not None and message["type"] == "http.response.body":
            await self.waits.wait()

    @property
    def body(self):
        return b"".join(bytes(message.get("body", b"")) for message in self.sent)

    @property
    def announced(self):
        return int(dict(self.sent[0]["headers"])[b"content-length"])


def _windows(chain, **settings):
    """The raw ASGI application of the window route, and its service."""
    app = create_app(Settings(workspace=chain.workspace.path, no_auth=True, **settings))
    (route,) = [route for route in app.router.routes if getattr(route, "path", "") == "/v1/rows/{ref}/window"]
    return route.endpoint, app.state.service


@pytest.fixture
def small_frames(monkeypatch):
    """Frames of one row, so that a window has many."""
    from dataforge.streams import windows

    monkeypatch.setattr(windows, "FRAME_BYTES", 1)


QUERY = "cursor=0&steps=4&global_batch=8"


def _ended(service, how):
    return service.metrics.registry.get_sample_value("dataforge_stream_windows_total", {"end": how}) or 0


def test_a_reader_that_is_gone_ends_the_window(chain, small_frames):
    endpoint, service = _windows(chain)

    async def go():
        wire = _Wire(endpoint, QUERY, gone_after=5)
        await endpoint(wire.scope, wire.receive, wire.send)
        return wire

    wire = asyncio.run(go())
    assert len(wire.sent) < 12
    assert len(wire.body) < wire.announced
    assert wire.sent[-1]["more_body"] is True  # never ended: the server closes the connection
    assert (_ended(service, "cut"), _ended(service, "whole")) == (1, 0)


def test_a_reader_that_is_too_slow_loses_its_window(chain, small_frames):
    endpoint, service = _windows(chain, window_timeout_s=0.2)

    async def go():
        wire = _Wire(endpoint, QUERY, reader_waits=asyncio.Event())
        await endpoint(wire.scope, wire.receive, wire.send)
        return wire

    wire = asyncio.run(go())
    assert len(wire.body) < wire.announced
    assert _ended(service, "cut") == 1


def test_too_many_windows_at_once_are_shed_by_process_and_by_key(chain, problem):
    endpoint, service = _windows(chain, max_windows=3, max_windows_per_key=2)

    async def go():
        block = asyncio.Event()
        wires = [_Wire(endpoint, QUERY, key_id=key, reader_waits=block) for key in ("a", "a", "b")]
        tasks = [asyncio.create_task(endpoint(wire.scope, wire.receive, wire.send)) for wire in wires]
        await asyncio.sleep(0.2)
        told = []
        for key in ("a", "c"):
            extra = _Wire(endpoint, QUERY, key_id=key)
            try:
                await endpoint(extra.scope, extra.receive, extra.send)
            except Exception as error:
                told.append(error)
        block.set()
        await asyncio.gather(*tasks)
        again = _Wire(endpoint, QUERY, key_id="a")
        await endpoint(again.scope, again.receive, again.send)
        return told, wires, again

    (first, second), wires, again = asyncio.run(go())
    assert {first.slug(), second.slug()} == {"overloaded"}
    assert (first.status, first.headers["retry-after"]) == (503, "1")
    assert all(len(wire.body) == wire.announced for wire in [*wires, again])
    assert service.metrics.registry.get_sample_value("dataforge_stream_windows_in_flight") == 0


def test_one_key_cannot_take_all_the_places(chain):
    endpoint, _ = _windows(chain, max_windows=9, max_windows_per_key=1)

    async def go():
        block = asyncio.Event()
        wire = _Wire(endpoint, QUERY, key_id="a", reader_waits=block)
        task = asyncio.create_task(endpoint(wire.scope, wire.receive, wire.send))
        await asyncio.sleep(0.2)
        told = None
        try:
            await endpoint(_Wire(endpoint, QUERY, key_id="a").scope, wire.receive, wire.send)
        except Exception as error:
            told = error
        other = _Wire(endpoint, QUERY, key_id="b")
        await endpoint(other.scope, other.receive, other.send)
        block.set()
        await task
        return told, other

    told, other = asyncio.run(go())
    assert (told.slug(), told.status) == ("too-many-windows", 429)
    assert len(other.body) == other.announced


def test_a_window_that_is_overdue_in_a_drain_ends_with_goaway(chain, small_frames):
    endpoint, service = _windows(chain, drain_s=0)

    async def go():
        wire = _Wire(endpoint, QUERY)
        original = wire.send

        async def send(message):
            await original(message)
            if len(wire.sent) == 4:
                service.drain.begin()

        await endpoint(wire.scope, wire.receive, send)
        return wire

    wire = asyncio.run(go())
    last = Header.unpack(bytes(wire.sent[-1]["body"])[:64], "")
    assert last.type is FrameType.GOAWAY
    assert len(wire.body) < wire.announced


def test_one_row_is_shown_with_where_every_token_came_from(client, chain):
    rows = Rows(chain.rows)
    for row in (0, 1, rows.num_rows - 1):
        told = client.get(f"/v1/rows/tiny/{row}").json()
        token_ids, segments = rows.read(row)
        assert told["token_ids"] == token_ids.tolist()
        assert (told["row"], told["num_tokens"], told["rows"]) == (row, 65, chain.rows.ref)
        assert told["plan"] == chain.plan.ref
        assert [[row, s["document"], s["offset"], s["length"]] for s in told["segments"]] == segments.tolist()
        documents = Documents(chain.documents).get(segments[:, 1].tolist(), ["id", "file", "position", "source"])
        for segment, document, trace in zip(told["segments"], documents, rows.trace(row), strict=True):
            assert {name: segment[name] for name in ("id", "file", "position", "source")} == {
                name: document[name] for name in ("id", "file", "position", "source")
            }
            assert (segment["draw"], segment["cluster"], segment["epoch"]) == (
                trace.position,
                trace.cluster,
                trace.epoch,
            )
            assert segment["reason"] == trace.reason
        assert np.cumsum([0] + [s["length"] for s in told["segments"]])[:-1].tolist() == [
            s["row_offset"] for s in told["segments"]
        ]


@pytest.mark.parametrize("row", ["-1", "x", "1.5", str(2**62)])
def test_a_row_number_that_is_none_is_refused(client, problem, row):
    problem(client.get(f"/v1/rows/tiny/{row}"), 422, "invalid-request")


def test_a_row_past_the_last_one_is_refused(client, problem):
    assert "99,999,999" in problem(client.get("/v1/rows/tiny/99999999"), 422, "past-the-end")["detail"]
