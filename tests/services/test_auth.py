"""Who may do what: 401 without a valid key, 403 without the scope, on every route but health."""

import asyncio
import json
import os

import pytest
from sqlalchemy.exc import OperationalError

from dataforge.errors import AccessDenied
from dataforge.services.auth import OPEN_PATHS, Authenticator
from dataforge.services.keys import SCOPES, KeyStore, create_key, id_of, revoke_key
from dataforge.services.problems import Unavailable

ROUTES = [
    ("GET", "/v1/artifacts", "artifacts:read"),
    ("GET", "/v1/artifacts/plans/tiny", "artifacts:read"),
    *[("GET", f"/v1/{kind}", "artifacts:read") for kind in ("documents", "clusters", "plans", "tokenizers", "shards")],
    *[("GET", f"/v1/{kind}/tiny", "artifacts:read") for kind in ("documents", "clusters", "plans", "tokenizers")],
    ("GET", "/v1/shards/tiny", "artifacts:read"),
    ("GET", "/v1/rows", "artifacts:read"),
    ("GET", "/v1/rows", "rows:read"),
    ("GET", "/v1/rows/tiny", "rows:read"),
    ("GET", "/v1/rows/tiny/0", "rows:read"),
    ("GET", "/v1/rows/tiny/window?cursor=0&steps=1&global_batch=1", "rows:read"),
    ("POST", "/v1/plans", "plans:write"),
    ("GET", "/v1/jobs", "jobs:read"),
    ("GET", "/v1/jobs/plans.tiny@000000000000", "jobs:read"),
]
BODY = {"clusters": "tiny", "config": {"num_draws": 400, "seed": 5}}
"""The plan that is there already."""


def _ask(client, method, path, key=None):
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return client.request(method, path, headers=headers, json=BODY if method == "POST" else None)


@pytest.fixture(scope="module")
def keyed(chain, served):
    """A client that sends no key, and one key for each scope."""
    keys = {scope: create_key(chain.workspace, scopes=[scope]) for scope in SCOPES}
    with served(chain.workspace, key=keys["rows:read"]) as client:
        del client.headers["authorization"]
        yield client, keys


def test_the_table_of_routes_is_whole(client):
    told = {
        f"{method.upper()} {path}"
        for path, item in client.get("/openapi.json").json()["paths"].items()
        for method in item
    }
    covered = {f"{method} {path.partition('?')[0]}" for method, path, _ in ROUTES}
    fill = {"{kind}": "plans", "{job_id}": "plans.tiny@000000000000", "{row}": "0", "{ref}": "tiny"}
    for name, value in fill.items():
        told = {path.replace(name, value) for path in told}
    assert told == covered | {f"GET {path}" for path in OPEN_PATHS}


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_each_route_wants_a_key_and_its_scope(keyed, problem, method, path, scope):
    client, keys = keyed
    response = _ask(client, method, path)
    problem(response, 401, "access-denied")
    assert response.headers["www-authenticate"].startswith("Bearer")
    allowed = {told for route, place, told in ROUTES if (route, place) == (method, path)} | (
        {"artifacts:read"} if path == "/v1/rows/tiny" else set()
    )
    for name, key in keys.items():
        response = _ask(client, method, path, key)
        if name in allowed:
            assert response.status_code == (404 if "jobs/" in path else 200), response.text
        else:
            told = problem(response, 403, "forbidden")
            assert scope in told["detail"] or name not in allowed
            assert id_of(key) in told["artifact"]
            assert 'error="insufficient_scope"' in response.headers["www-authenticate"]


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "/openapi.json", "/v1/rows/tiny/extra/path", "/metrics", "/docs"])
def test_nothing_but_health_answers_without_a_key(keyed, problem, path):
    client, _ = keyed
    problem(client.get(path), 401, "access-denied")
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def _change(key, place):
    other = "A" if key[place] != "A" else "B"
    return key[:place] + other + key[place + 1 :]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic {key}",
        "{key}",
        "Bearer {key}x",
        "Bearer {key} {key}",
        "Token {key}",
        "bearer\t{key}",
    ],
)
def test_a_header_that_holds_no_key_is_refused(keyed, problem, header):
    client, keys = keyed
    response = client.get("/v1/rows", headers={"authorization": header.format(key=keys["rows:read"])})
    problem(response, 401, "access-denied")


def test_a_key_with_a_wrong_checksum_is_told_apart_from_an_unknown_one(keyed, problem, tmp_path, chain):
    client, keys = keyed
    told = problem(_ask(client, "GET", "/v1/rows", _change(keys["rows:read"], 30)), 401, "access-denied")
    assert "checksum" in told["detail"]
    from dataforge.workspace import Workspace

    foreign = create_key(Workspace(tmp_path / "other"), scopes=SCOPES)
    told = problem(_ask(client, "GET", "/v1/rows", foreign), 401, "access-denied")
    assert "not known" in told["detail"]


def test_a_key_with_a_known_id_and_another_secret_is_refused(keyed, problem):
    from dataforge.services.keys import _checksum

    client, keys = keyed
    body = _change(keys["rows:read"], 30).rpartition("_")[0]
    told = problem(_ask(client, "GET", "/v1/rows", f"{body}_{_checksum(body)}"), 401, "access-denied")
    assert "not known" in told["detail"]


def test_revoked_and_expired_keys_are_refused(chain, served, problem, monkeypatch):
    revoked, expired = create_key(chain.workspace, scopes=SCOPES), create_key(chain.workspace, scopes=SCOPES, days=1)
    with served(chain.workspace, key=revoked, auth_cache_s=0) as client:
        assert client.get("/v1/rows").status_code == 200
        revoke_key(chain.workspace, id_of(revoked))
        assert "revoked" in problem(client.get("/v1/rows"), 401, "access-denied")["detail"]
        assert _ask(client, "GET", "/v1/rows", expired).status_code == 200
        import time

        later = time.time() + 90_000
        monkeypatch.setattr(time, "time", lambda: later)
        assert "expired" in problem(_ask(client, "GET", "/v1/rows", expired), 401, "access-denied")["detail"]


def test_without_keys_only_loopback_names_are_answered(open_client, problem):
    for host in ("127.0.0.1", "localhost", "localhost:8765", "[::1]", "[::1]:80"):
        assert open_client.get("/v1/rows", headers={"host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example:80", "evil.example:127", ""):
        problem(open_client.get("/v1/rows", headers={"host": host}), 403, "forbidden")


class _Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_known_keys_go_on_for_a_while_when_the_database_is_out_of_reach(workspace):
    known, other = (create_key(workspace, scopes=["rows:read"]) for _ in range(2))
    clock = _Clock()
    door = Authenticator(KeyStore(workspace.path), cache_s=5, grace_s=900, clock=clock)

    def grant(key):
        return asyncio.run(door.grant(f"Bearer {key}"))

    assert grant(known).scopes == {"rows:read"}
    path = workspace.path / "service" / "service.sqlite"
    os.rename(path, path.with_suffix(".away"))
    clock.now = 100
    assert grant(known).key_id == id_of(known)
    assert not door.reachable
    with pytest.raises(Unavailable):
        grant(other)
    clock.now = 901
    with pytest.raises(Unavailable):
        grant(known)
    os.rename(path.with_suffix(".away"), path)
    assert grant(other).key_id == id_of(other)
    assert door.reachable


def test_a_locked_or_broken_database_does_not_let_anyone_in(workspace, monkeypatch):
    key = create_key(workspace, scopes=["rows:read"])
    door = Authenticator(KeyStore(workspace.path), cache_s=5, grace_s=900)
    (workspace.path / "service" / "service.sqlite").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(Unavailable):
        asyncio.run(door.grant(f"Bearer {key}"))


def test_where_no_key_was_ever_made_every_key_is_unknown(workspace, tmp_path):
    from dataforge.workspace import Workspace

    key = create_key(Workspace(tmp_path / "other"), scopes=["rows:read"])
    door = Authenticator(KeyStore(workspace.path), cache_s=5, grace_s=900)
    with pytest.raises(AccessDenied) as caught:
        asyncio.run(door.grant(f"Bearer {key}"))
    assert "keys create" in str(caught.value)


def test_a_lost_pepper_is_no_open_door(workspace):
    key = create_key(workspace, scopes=["rows:read"])
    (workspace.path / "service" / "pepper").unlink()
    with pytest.raises(Unavailable):
        asyncio.run(Authenticator(KeyStore(workspace.path), 5, 900).grant(f"Bearer {key}"))


def test_streams_go_on_and_readyz_says_degraded_when_the_database_is_gone(own_chain, served, problem):
    key = create_key(own_chain.workspace, scopes=["rows:read"])
    stranger = create_key(own_chain.workspace, scopes=["rows:read"])
    path = "/v1/rows/tiny/window?cursor=0&steps=1&global_batch=2"
    with served(own_chain.workspace, key=key, auth_cache_s=0) as client:
        before = client.get(path).content
        database = own_chain.workspace.path / "service" / "service.sqlite"
        os.rename(database, database.with_suffix(".away"))
        assert client.get(path).content == before
        told = client.get("/readyz")
        assert (told.status_code, told.json()["status"]) == (200, "degraded")
        response = _ask(client, "GET", path, stranger)
        problem(response, 503, "unavailable")
        assert response.headers["retry-after"] == "5"


def test_a_database_that_can_only_be_read_still_opens_doors(workspace, monkeypatch):
    key = create_key(workspace, scopes=["rows:read"])

    def fail(*_):
        raise OperationalError("update", {}, Exception("attempt to write a readonly database"))

    monkeypatch.setattr(KeyStore, "note_use", fail)
    door = Authenticator(KeyStore(workspace.path), cache_s=5, grace_s=900)
    assert asyncio.run(door.grant(f"Bearer {key}")).key_id == id_of(key)


def test_no_answer_and_no_log_line_holds_a_key(chain, served, caplog):
    key = create_key(chain.workspace, scopes=["rows:read"])
    secret = key.split("_")[3]
    with caplog.at_level("DEBUG"), served(chain.workspace, key=key) as client:
        answers = [client.get("/v1/plans"), client.get("/v1/rows"), _ask(client, "GET", "/v1/rows", _change(key, 5))]
    assert secret not in caplog.text
    assert all(secret not in json.dumps(dict(answer.headers)) + answer.text for answer in answers)
