"""Every error has one shape: three parts, a status, an id, and nothing of this machine."""

import json
import logging
from pathlib import Path

import pytest

from dataforge import errors
from dataforge.errors import DataforgeError
from dataforge.services import artifacts
from dataforge.services.problems import Scrubber


def _all(cls):
    return [cls, *(deeper for child in cls.__subclasses__() for deeper in _all(child))]


def test_an_unknown_route_is_not_found(client, problem):
    assert "/v1/nothing" in problem(client.get("/v1/nothing"), 404, "no-such-route")["detail"]


@pytest.mark.parametrize("path", ["/v1/plans/tiny", "/v1/rows/tiny/window", "/v1/rows", "/livez"])
def test_a_method_that_is_not_known_is_not_allowed(client, problem, path):
    response = client.delete(path)
    assert "GET" in problem(response, 405, "method-not-allowed")["hint"]
    assert "GET" in response.headers["allow"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[1]", "application/json"),
        (b"null", "application/json"),
        (b'{"clusters": "tiny", "config": {}}', "text/plain"),
        (b'{"clusters": 3, "config": {}}', "application/json"),
        (b'{"clusters": "tiny"}', "application/json"),
        (b'{"clusters": "tiny", "config": {}, "other": 1}', "application/json"),
        (b'{"clusters": "tiny", "config": []}', "application/json"),
        (b'{"clusters": "", "config": {}}', "application/json"),
    ],
)
def test_a_body_that_does_not_fit_is_told_field_by_field(client, problem, body, kind):
    response = client.post("/v1/plans", content=body, headers={"content-type": kind})
    told = problem(response, 422, "invalid-request")
    assert all(set(fault) == {"where", "detail"} for fault in told["errors"])
    assert told["errors"][0]["where"].startswith("body")


@pytest.mark.parametrize(
    "body", [b'{"clusters": "tiny", "config": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, b'{"a": "\x80"}']
)
def test_a_body_that_cannot_be_read_as_json_is_refused(client, problem, body):
    response = client.post("/v1/plans", content=body, headers={"content-type": "application/json"})
    problem(response, 422, "invalid-request")


def test_a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not(client, problem):
    kind = {"content-type": "application/json"}
    big = b'{"clusters": "' + b"a" * (1 << 20) + b'", "config": {}}'
    told = problem(client.post("/v1/plans", content=big, headers=kind), 413, "body-too-large")
    assert "1,048,576" in told["detail"]
    pieces = (big[i : i + 65536] for i in range(0, len(big), 65536))
    problem(client.post("/v1/plans", content=pieces, headers=kind), 413, "body-too-large")


def test_a_compressed_body_is_refused(client, problem):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    problem(client.post("/v1/plans", content=b"\x1f\x8b", headers=headers), 415, "unsupported-encoding")


@pytest.mark.parametrize("length", ["-1", "x", "9" * 5000, "1e3"])
def test_a_content_length_that_is_none_is_refused(client, problem, length):
    headers = {"content-type": "application/json", "content-length": length}
    problem(client.post("/v1/plans", content=b"{}", headers=headers), 413, "body-too-large")


@pytest.mark.parametrize("kind", [cls for cls in _all(DataforgeError) if cls.__module__ == errors.__name__])
def test_every_stated_error_keeps_its_status_and_its_three_parts(client, problem, monkeypatch, chain, kind):
    place = chain.workspace.path / "shards" / "x" / "part-00000.tok"

    def fail(*_):
        raise kind(f"there is 1 fault in {place}", where=str(place), hint=f"see {Path.home() / 'a' / 'notes.txt'}")

    monkeypatch.setattr(artifacts, "opened", fail)
    slug = "internal" if kind is DataforgeError else kind.slug()
    told = problem(client.get("/v1/documents/tiny"), kind.status, slug)
    assert told["detail"] == "there is 1 fault in shards/x/part-00000.tok"
    assert (told["artifact"], told["hint"]) == ("shards/x/part-00000.tok", "see notes.txt")


def test_a_fault_of_the_service_is_logged_and_not_told(client, problem, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr(artifacts, "opened", fail)
    with caplog.at_level(logging.ERROR):
        told = problem(client.get("/v1/documents/tiny"), 500, "internal")
    assert "secret" not in json.dumps(told)
    assert told["instance"] in caplog.text
    assert "secret /etc/passwd" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/ws", "the workspace"),
        ("/data/ws/plans/a@0: torn", "plans/a@0: torn"),
        ("cannot open '/srv/models/.cache/m.bin' (2)", "cannot open 'm.bin' (2)"),
        ("see /v1/rows/a and http://h/a/b", "see /v1/rows/a and http://h/a/b"),
        ("3 of 4 parts, plans/web@12 and 1/2/3", "3 of 4 parts, plans/web@12 and 1/2/3"),
        ("in /a/b/", "in a folder"),
    ],
)
def test_paths_of_this_machine_are_taken_out_of_texts(text, expected):
    assert Scrubber(Path("/data/ws")).text(text) == expected
