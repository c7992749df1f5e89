"""Artifacts over REST: every kind can be listed and shown, page by page, by name or id."""

import pytest

from dataforge.services.artifacts import KINDS
from dataforge.workspace.parts import read_json


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed_and_shown_by_name_by_id_and_by_both(client, chain, kind):
    listed = client.get(f"/v1/{kind}").json()["artifacts"]
    held = {artifact.ref: artifact for artifact in chain.workspace.artifacts(kind)}
    assert {told["ref"] for told in listed} == set(held)
    for told in listed:
        artifact = held[told["ref"]]
        assert (told["id"], told["content"], told["counts"]) == (artifact.id, artifact.content, artifact.counts)
        for ref in (artifact.id, f"{artifact.name}@{artifact.id}"):
            shown = client.get(f"/v1/{kind}/{ref}").json()
            assert shown["manifest"] == read_json(artifact.path / "manifest.json")
            assert shown["ref"] == artifact.ref
    assert client.get(f"/v1/{kind}/tiny").json()["ref"] == chain.workspace.open(f"{kind}/tiny").ref


def test_kinds_without_a_resource_of_their_own_are_shown_too(client, chain):
    hashes = chain.workspace.artifacts("text-hashes")[0]
    assert client.get(f"/v1/artifacts/text-hashes/{hashes.id}").json()["ref"] == hashes.ref
    listed = client.get("/v1/artifacts", params={"kind": "text-hashes"}).json()["artifacts"]
    assert [told["ref"] for told in listed] == [hashes.ref]


def test_pages_hold_every_artifact_once_and_only_read_their_own_manifests(client, chain):
    everything = [artifact.ref for artifact in chain.workspace.artifacts()]
    for size in (1, 2, 3, 1000):
        found, token = [], None
        while True:
            params = {"page_size": size} | ({"page_token": token} if token else {})
            page = client.get("/v1/artifacts", params=params).json()
            assert len(page["artifacts"]) <= size
            found += [told["ref"] for told in page["artifacts"]]
            token = page["next_page_token"]
            if token is None:
                break
        assert sorted(found) == sorted(everything)
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("token", ["", "x", "!!!!", "AAAA", "Li4vLi4vLi4", "Ly8v", "a" * 512])
def test_a_page_token_that_is_none_is_refused(client, problem, token):
    problem(client.get("/v1/documents", params={"page_token": token}), 422, "invalid-request")


def test_a_page_token_of_another_list_is_refused(client, problem):
    token = client.get("/v1/artifacts", params={"page_size": 1}).json()["next_page_token"]
    told = problem(client.get("/v1/documents", params={"page_token": token}), 422, "invalid-request")
    assert "page_token" in told["detail"]


@pytest.mark.parametrize(
    "query", ["page_size=0", "page_size=1001", "page_size=x", "page_size=1.5", "size=3", "kind=.."]
)
def test_a_query_that_does_not_fit_is_told_by_name(client, problem, query):
    told = problem(client.get(f"/v1/artifacts?{query}"), 422, "invalid-request")
    assert told["errors"][0]["where"] == f"query.{query.partition('=')[0]}"


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_artifact_is_not_found_and_the_nearest_name_is_told(client, problem, kind):
    assert "tiny" in problem(client.get(f"/v1/{kind}/tini"), 404, "artifact-not-found")["hint"]
    problem(client.get(f"/v1/{kind}/{'0' * 12}"), 404, "artifact-not-found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/rows/..%2f..%2fetc",
        "/v1/rows/%2e%2e",
        "/v1/rows/..",
        "/v1/rows/tiny%00",
        "/v1/rows/%E2%88%95etc",
        "/v1/rows/tiny%5c..%5cx",
        "/v1/rows/" + "a" * 64,
        "/v1/rows/Tiny",
        "/v1/rows/tiny@zz",
        "/v1/artifacts/..%2f/tiny",
        "/v1/artifacts/names/rows",
        "/v1/artifacts/service/pepper",
        "/v1/artifacts/%2e%2e/%2e%2e",
    ],
)
def test_no_path_leads_out_of_the_artifacts(client, problem, path):
    response = client.get(path)
    assert response.status_code in (404, 422), response.text
    problem(response, response.status_code, response.json()["type"].rpartition("/")[2])


def test_an_artifact_that_was_begun_and_not_finished_says_so(own_chain, problem, served):
    (own_chain.plan.path / "manifest.json").unlink()
    with served(own_chain.workspace) as client:
        told = problem(client.get("/v1/plans/tiny"), 409, "artifact-incomplete")
        assert "goes on" in told["hint"]
        assert client.get("/v1/plans").json()["artifacts"] == []


def test_a_manifest_that_is_torn_is_a_problem_without_a_path(own_chain, problem, served):
    (own_chain.rows.path / "manifest.json").write_text("{")
    with served(own_chain.workspace) as client:
        told = problem(client.get("/v1/rows/tiny"), 500, "format")
        assert told["artifact"] == f"rows/tiny@{own_chain.rows.id}/manifest.json"
