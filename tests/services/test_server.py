"""A real server on a free port: a loader over it is the loader over the folder; refusals; drain."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest

from dataforge.errors import AccessDenied, ConfigError, Forbidden
from dataforge.plans.plan import PlanConfig, plan
from dataforge.rows import Rows
from dataforge.rows.pack import PackConfig, pack
from dataforge.services import server
from dataforge.services.keys import SCOPES, create_key, id_of, revoke_key
from dataforge.services.server import running, serve
from dataforge.services.settings import Settings
from dataforge.streams import Loader
from dataforge.streams.frames import MAGIC, FrameType, Header
from dataforge.workspace import Workspace


@pytest.fixture(scope="module")
def service(chain):
    """A running service with keys, and a key that may only stream."""
    key = create_key(chain.workspace, scopes=["rows:read"])
    with running(Settings(workspace=chain.workspace.path, port=0, metrics_port=0)) as bound:
        yield bound, key


def _read(loader):
    with loader:
        return [(batch.token_ids.copy(), batch.segments.copy(), batch.cursor) for batch in loader]


def _same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one[0].dtype == other[0].dtype
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])
        assert one[2] == other[2]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_a_loader_over_http_gives_what_a_loader_over_the_folder_gives(service, chain, world_size):
    bound, key = service
    url = f"{bound.url}/v1/rows/{chain.rows.id}"
    union = []
    for rank in range(world_size):
        told = {"rank": rank, "world_size": world_size, "global_batch": 24, "cursor": 5}
        direct, remote = _read(Loader(chain.rows.path, **told)), _read(Loader(url, api_key=key, **told))
        _same(direct, remote)
        union += [row for _, segments, _ in remote for row in np.unique(segments[:, 0]).tolist()]
    assert sorted(union) == list(range(5, Rows(chain.rows).num_rows))


def test_a_change_of_world_size_in_the_middle_loses_and_repeats_nothing(service, chain):
    bound, key = service
    url, seen, state = f"{bound.url}/v1/rows/tiny", [], None
    for world_size, steps in ((1, 2), (3, 3), (8, 1), (2, None)):
        loaders = [
            Loader(url, api_key=key, rank=rank, world_size=world_size, global_batch=16) for rank in range(world_size)
        ]
        states = []
        for loader in loaders:
            with loader:
                if state is not None:
                    loader.load_state_dict(state)
                taken = list(loader) if steps is None else [next(loader) for _ in range(steps)]
                seen += [row for batch in taken for row in np.unique(batch.segments[:, 0]).tolist()]
                states.append(loader.state_dict())
        assert all(told == states[0] for told in states)
        state = states[0]
    assert sorted(seen) == list(range(Rows(chain.rows).num_rows))


def test_a_loader_is_refused_without_a_key_and_without_the_scope(service, chain):
    bound, key = service
    url = f"{bound.url}/v1/rows/{chain.rows.id}"
    with pytest.raises(AccessDenied):
        Loader(url, global_batch=4)
    with pytest.raises(AccessDenied):
        Loader(url, api_key=key[:-1] + ("0" if key[-1] != "0" else "1"), global_batch=4)
    with pytest.raises(Forbidden):
        Loader(url, api_key=create_key(chain.workspace, scopes=["plans:write"]), global_batch=4)


def _get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_metrics_have_a_port_of_their_own_and_count_by_route_template(service, chain):
    bound, key = service
    with Loader(f"{bound.url}/v1/rows/{chain.rows.id}", api_key=key, global_batch=8, steps=2) as loader:
        rows = sum(len(batch.token_ids) for batch in loader)
    assert _get(f"{bound.url}/v1/rows/tini/window?cursor=0", authorization=f"Bearer {key}")[0] == 422
    status, text, _ = _get(bound.metrics_url)
    assert status == 200
    route = 'route="/v1/rows/{ref}/window"'
    told = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[:1] != "#"}
    assert told[f'dataforge_http_requests_total{{method="GET",{route},status="200"}}'] >= 2
    assert told[f'dataforge_http_requests_total{{method="GET",{route},status="422"}}'] >= 1
    assert told[f'dataforge_http_request_seconds_count{{method="GET",{route}}}'] >= 3
    assert told["dataforge_stream_rows_total"] >= rows
    assert told['dataforge_stream_windows_total{end="whole"}'] >= 2
    assert told["dataforge_stream_windows_in_flight"] == 0
    assert "process_resident_memory_bytes" in told
    assert chain.rows.id not in text
    assert id_of(key) not in text
    assert bound.metrics_url.rpartition(":")[2] != bound.url.rpartition(":")[2]
    assert _get(f"{bound.url}/metrics")[0] == 401


def test_no_compression_and_no_server_name(service, chain):
    bound, key = service
    url = f"{bound.url}/v1/rows/{chain.rows.id}/window?cursor=0&steps=1&global_batch=64"
    _, _, headers = _get(url, authorization=f"Bearer {key}", **{"accept-encoding": "gzip, br"})
    assert headers["content-encoding"] is None
    assert headers["server"] is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_an_address_that_others_reach_is_refused_without_keys(workspace, host):
    with pytest.raises(ConfigError) as caught:
        serve(workspace, host, 0)
    assert "keys create" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        serve(workspace, host, 0, no_auth=True)
    assert "--no-auth is for loopback" in str(caught.value)


def test_revoked_and_expired_keys_open_no_door(workspace, monkeypatch):
    revoke_key(workspace, id_of(create_key(workspace, scopes=SCOPES)))
    create_key(workspace, scopes=SCOPES, days=1)
    settings = Settings(workspace=workspace.path, host="0.0.0.0", port=0)
    server._refuse_open_doors(settings)
    later = time.time() + 90_000
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(ConfigError):
        server._refuse_open_doors(settings)


def test_with_a_key_an_open_address_is_served(workspace):
    create_key(workspace, scopes=SCOPES)
    with running(Settings(workspace=workspace.path, host="0.0.0.0", port=0)) as bound:
        assert _get(f"{bound.url}/livez")[0] == 200
        assert _get(f"{bound.url}/v1/rows")[0] == 401


def test_what_cannot_be_listened_on_is_said(workspace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            serve(workspace, "127.0.0.1", port)
        assert str(port) in caught.value.what
        with pytest.raises(ConfigError) as caught:
            serve(workspace, "127.0.0.1", 0, metrics_port=port)
        assert "metrics" in caught.value.what
    with pytest.raises(ConfigError):
        serve(workspace, "no-such-host.invalid", 0)


def test_a_folder_that_is_no_workspace_is_refused(tmp_path):
    with pytest.raises(Exception) as caught:
        serve(tmp_path / "nothing", "127.0.0.1", 0)
    assert "no workspace" in str(caught.value)


PROGRAM = """
import sys
from dataforge.services.server import serve
serve(sys.argv[1], "127.0.0.1", 0, no_auth=True, ready_file=sys.argv[2])
"""


def _start(chain, tmp_path, **environment):
    ready = tmp_path / "ready.json"
    environment = {f"DATAFORGE_{name.upper()}": str(value) for name, value in environment.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(chain.workspace.path), str(ready)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert json.loads(ready.read_text())["url"] == url
    return process, url


@pytest.fixture(scope="module")
def long_path(chain):
    """The URL path of a window of some 25 MB, more than the network holds in its buffers."""
    config = PlanConfig(num_draws=100_000, max_repeats=None, seed=1)
    made = plan(chain.workspace, chain.clusters, name="long", config=config)
    rows = pack(chain.workspace, made, chain.shards, name="long", config=PackConfig(row_length=512))
    steps = min(Rows(rows).num_rows, 25_000_000 // 1100)
    return f"/v1/rows/{rows.id}/window?cursor=0&steps=1&global_batch={steps}"


@contextlib.contextmanager
def _slow_reader(url, path):
    """A reader that has taken the first bytes of a window, and no more."""
    port = int(url.rpartition(":")[2])
    with socket.socket() as slow:
        slow.settimeout(10)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.connect(("127.0.0.1", port))
        slow.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        first = slow.recv(1000)
        assert b"200 OK" in first
        yield slow, first


def _rest(slow, first):
    pieces = [first]
    while piece := slow.recv(1 << 18):
        pieces.append(piece)
    return b"".join(pieces).partition(b"\r\n\r\n")[2]


def test_sigterm_finishes_the_window_that_is_under_way_and_ends_with_0(chain, tmp_path, long_path):
    process, url = _start(chain, tmp_path)
    try:
        whole = urllib.request.urlopen(url + long_path, timeout=30).read()
        assert len(whole) > 20_000_000
        with _slow_reader(url, long_path) as (slow, first):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None
            with pytest.raises(OSError):  # no new connections
                socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1)
            assert _rest(slow, first) == whole
        assert process.wait(10) == 0
        assert process.stderr.read().splitlines() == [
            f"metrics at {json.loads((tmp_path / 'ready.json').read_text())['metrics_url']}"
        ]
    finally:
        process.kill()
        process.communicate()


def test_a_window_that_outlasts_the_drain_is_cut_with_goaway(chain, tmp_path, long_path):
    process, url = _start(chain, tmp_path, drain_s=0.2)
    try:
        with _slow_reader(url, long_path) as (slow, first):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            body = _rest(slow, first)
        assert process.wait(10) == 0
        (length,) = [line for line in first.split(b"\r\n") if line.lower().startswith(b"content-length")]
        assert len(body) < int(length.partition(b":")[2])
        last = body.rindex(MAGIC)
        assert Header.unpack(body[last : last + 64], "").type is FrameType.GOAWAY
    finally:
        process.kill()
        process.communicate()


def test_readyz_says_draining_before_the_door_closes_and_sigint_is_an_interrupt(chain, tmp_path):
    process, url = _start(chain, tmp_path, drain_delay_s=1)
    try:
        assert _get(f"{url}/readyz")[0] == 200
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 5
        while (answer := _get(f"{url}/readyz"))[0] == 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert answer[0] == 503
        assert "draining" in answer[1]
        assert _get(f"{url}/v1/rows/tiny")[0] == 200  # still serving while load balancers look away
        process.wait(10)
        assert "KeyboardInterrupt" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_a_killed_server_is_started_again_and_the_loader_goes_on(chain, tmp_path):
    process, url = _start(chain, tmp_path)
    port = int(url.rpartition(":")[2])
    expected = [batch.token_ids.tolist() for batch in Loader(chain.rows.path, global_batch=4)]
    got = []
    again = threading.Event()

    def restart():
        process.kill()
        process.wait(10)
        with running(Settings(workspace=chain.workspace.path, port=port, no_auth=True)):
            again.wait(30)

    with Loader(f"{url}/v1/rows/tiny", global_batch=4, prefetch_bytes=1) as loader:
        got.append(next(loader).token_ids.tolist())
        thread = threading.Thread(target=restart)
        thread.start()
        got += [batch.token_ids.tolist() for batch in loader]
        again.set()
        thread.join()
    process.communicate()
    assert got == expected


def test_settings_come_from_the_environment_and_arguments_win(monkeypatch, tmp_path):
    monkeypatch.setenv("DATAFORGE_PORT", "9999")
    monkeypatch.setenv("DATAFORGE_MAX_WINDOWS", "3")
    monkeypatch.setenv("DATAFORGE_API_KEY", "not a setting")
    told = Settings(workspace=tmp_path, port=1234)
    assert (told.port, told.max_windows) == (1234, 3)
    with pytest.raises(ValueError):
        told.port = 5
    monkeypatch.setenv("DATAFORGE_PORT", "99999")
    with pytest.raises(ValueError):
        Settings()


def test_the_program_interface_takes_a_workspace_or_a_path(chain):
    seen = []
    thread_free = threading.Event()

    def ready(bound):
        seen.append(bound)
        thread_free.set()
        os.kill(os.getpid(), signal.SIGTERM)

    serve(Workspace(chain.workspace.path), "localhost", 0, no_auth=True, ready=ready)
    assert thread_free.is_set()
    assert seen[0].url.startswith("http://localhost:")
