"""Plans over REST: built once, found again, refused with the numbers; long builds become jobs."""

import threading
import time

import pytest

from dataforge.plans.plan import PlanConfig, plan
from dataforge.services import plans
from dataforge.services.jobs import Jobs
from dataforge.services.metrics import Metrics
from dataforge.services.problems import Overloaded, Scrubber
from dataforge.workspace import Ref


def _ask(client, name="web", clusters="tiny", **config):
    return client.post("/v1/plans", json={"clusters": clusters, "name": name, "config": config})


def test_a_plan_is_made_once_and_the_same_request_finds_it(client, chain):
    first = _ask(client, num_draws=300, seed=11)
    assert first.status_code == 201, first.text
    told = first.json()
    assert first.headers["location"] == f"/v1/plans/{told['id']}"
    assert told == {"id": told["id"], "ref": f"plans/web@{told['id']}", "name": "web", "created": True}
    second = _ask(client, num_draws=300, seed=11)
    assert (second.status_code, second.json()["id"]) == (200, told["id"])
    assert second.headers["location"] == first.headers["location"]
    assert second.json()["created"] is False
    assert _ask(client, num_draws=300, seed=12).json()["id"] != told["id"]


def test_a_plan_over_rest_is_the_plan_that_python_makes(client, chain, tmp_path):
    told = _ask(client, num_draws=333, seed=4, max_repeats=3, boosts={"2": 1.5}).json()
    config = PlanConfig(num_draws=333, seed=4, max_repeats=3, boosts={"2": 1.5})
    made = plan(chain.workspace, chain.clusters, name="python", config=config)
    assert made.id == told["id"]
    shown = client.get(f"/v1/plans/{told['id']}").json()
    assert shown["manifest"] == made.manifest.to_json()
    assert sum(shown["draws_by_cluster"]) == shown["num_draws"] == 333
    assert sum(shown["sizes"]) == shown["num_documents"]
    assert len(shown["draws_by_cluster"]) == len(shown["sizes"]) == 7
    assert shown["summary"][0].startswith("drew     333 times")


def test_the_name_moves_to_the_plan_that_was_asked_for_last(client, chain):
    first = _ask(client, name="moving", num_draws=50, seed=1).json()["id"]
    second = _ask(client, name="moving", num_draws=50, seed=2).json()["id"]
    assert client.get("/v1/plans/moving").json()["manifest"]["id"] == second
    assert _ask(client, name="moving", num_draws=50, seed=1).status_code == 200
    assert client.get("/v1/plans/moving").json()["manifest"]["id"] == first


@pytest.mark.parametrize("clusters", ["tiny", "clusters/tiny", "{id}", "tiny@{id}", "clusters/tiny@{id}"])
def test_clusters_are_named_by_name_by_id_or_by_both(client, chain, clusters):
    response = _ask(client, clusters=clusters.format(id=chain.clusters.id), num_draws=400, seed=5)
    assert response.status_code == 200, response.text
    assert response.json()["id"] == chain.plan.id


def test_a_budget_that_cannot_be_met_is_refused_with_the_numbers(client, chain, problem):
    documents = chain.plan.counts["out"]["documents"]
    told = problem(_ask(client, num_draws=10_000, max_repeats=2), 422, "plan-infeasible")
    assert "10,000 draws" in told["detail"]
    assert f"{documents:,} documents" in told["detail"]
    assert f"{2 * documents:,}" in told["detail"]
    assert f"{2 * documents:,}" in told["hint"]
    assert told["artifact"] == chain.clusters.ref


@pytest.mark.parametrize(
    ("config", "slug", "word"),
    [
        ({"num_draw": 5}, "unknown-name", "num_draws"),
        ({"num_draws": "5"}, "config", "whole number"),
        ({"num_draws": 5.5}, "config", "num_draws"),
        ({}, "config", "length"),
        ({"num_draws": 5, "epochs": 1.0}, "config", "both"),
        ({"num_draws": 0}, "config", "above 0"),
        ({"num_draws": -1}, "config", "above 0"),
        ({"num_draws": 10**30}, "config", "64 bits"),
        ({"num_draws": 5, "seed": -(10**30)}, "config", "64 bits"),
        ({"num_draws": 5, "sampler": "clusterclap"}, "unknown-name", "clusterclip"),
        ({"num_draws": 5, "schedule": "often"}, "config", "schedule"),
        ({"num_draws": 5, "floors": {"99": 1}}, "config", "cluster 99"),
        ({"num_draws": 5, "floors": {"x": 1}}, "config", "'x'"),
        ({"num_draws": 5, "boosts": {"0": -1.0}}, "config", "weights"),
        ({"num_draws": 5, "alpha": 0.5}, "config", "alpha"),
    ],
)
def test_a_setting_that_does_not_fit_is_told_by_name(client, problem, config, slug, word):
    told = problem(_ask(client, **config), 422, slug)
    assert word in told["detail"] + told.get("hint", "")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_json_does_not_have_are_refused(client, problem, number):
    body = f'{{"clusters": "tiny", "config": {{"epochs": {number}}}}}'
    problem(client.post("/v1/plans", content=body, headers={"content-type": "application/json"}), 422, "config")


@pytest.mark.parametrize(
    ("clusters", "status", "slug"),
    [
        ("tini", 404, "artifact-not-found"),
        ("000000000000", 404, "artifact-not-found"),
        ("plans/tiny", 422, "config"),
        ("../../etc/passwd", 422, "config"),
        ("tiny@zz", 422, "config"),
        ("x" * 100, 422, "config"),
    ],
)
def test_clusters_that_are_not_there_are_a_problem(client, problem, clusters, status, slug):
    problem(_ask(client, clusters=clusters, num_draws=5), status, slug)


@pytest.mark.parametrize("name", ["Web", "../x", "", "0123456789ab", "a/b"])
def test_a_name_that_cannot_be_one_is_refused(client, problem, name):
    problem(_ask(client, name=name, num_draws=5), 422, "config")


def test_a_budget_in_tokens_uses_the_shards_that_are_named(client, chain):
    plain = _ask(client, num_tokens=3000, seed=1).json()["id"]
    told = {"clusters": "tiny", "shards": "tiny", "documents": "tiny", "config": {"num_tokens": 3000, "seed": 1}}
    counted = client.post("/v1/plans", json=told)
    assert counted.status_code == 201
    assert counted.json()["id"] != plain
    assert client.get(f"/v1/plans/{plain}").status_code == 200


def test_a_build_that_takes_long_is_answered_with_a_job_that_ends_in_the_plan(chain, served, monkeypatch):
    let_go = threading.Event()
    real = plans._Wanted.make

    def slow(self):
        assert let_go.wait(20)
        return real(self)

    monkeypatch.setattr(plans._Wanted, "make", slow)
    with served(chain.workspace, build_wait_s=0.05) as client:
        first = _ask(client, name="slow", num_draws=200, seed=77)
        assert first.status_code == 202
        job = first.json()
        assert first.headers["location"] == f"/v1/jobs/{job['id']}"
        assert first.headers["retry-after"] == "1"
        assert job["id"] == "plans.slow@" + job["artifact"].rpartition("@")[2]
        again = _ask(client, name="slow", num_draws=200, seed=77)
        assert (again.status_code, again.json()["id"]) == (202, job["id"])
        assert client.get(first.headers["location"]).json()["state"] == "running"
        assert [told["id"] for told in client.get("/v1/jobs").json()["jobs"]] == [job["id"]]
        let_go.set()
        told = _wait(client, job["id"])
        assert told["state"] == "succeeded"
        assert told["created_at"] <= told["started_at"] <= told["ended_at"]
        assert client.get(told["result"]).json()["ref"] == job["artifact"]
        last = _ask(client, name="slow", num_draws=200, seed=77)
        assert (last.status_code, last.json()["ref"]) == (200, job["artifact"])


def _wait(client, job_id):
    for _ in range(200):
        told = client.get(f"/v1/jobs/{job_id}").json()
        if told["state"] not in ("waiting", "running"):
            return told
        time.sleep(0.02)
    raise AssertionError(told)


def test_a_job_that_fails_keeps_its_problem_and_can_be_asked_for_again(chain, served, monkeypatch):
    real = plans._Wanted.make

    def slow(self):
        time.sleep(0.1)
        return real(self)

    monkeypatch.setattr(plans._Wanted, "make", slow)
    with served(chain.workspace, build_wait_s=0) as client:
        job = _ask(client, name="failing", num_draws=20_000, max_repeats=1).json()["id"]
        told = _wait(client, job)
        assert told["state"] == "failed"
        assert told["problem"]["type"] == "/problems/plan-infeasible"
        assert "20,000" in told["problem"]["detail"]
        assert told["result"] is None
        assert _ask(client, name="failing", num_draws=20_000, max_repeats=1).status_code == 202


def test_jobs_are_found_again_after_a_restart_from_their_files_alone(own_chain, served, problem):
    job_id = f"plans.tiny@{own_chain.plan.id}"
    with served(own_chain.workspace) as client:
        told = client.get(f"/v1/jobs/{job_id}").json()
        assert (told["state"], told["result"]) == ("succeeded", f"/v1/plans/{own_chain.plan.id}")
        (own_chain.plan.path / "manifest.json").unlink()
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "interrupted"
        # The same POST goes on with it.
        again = _ask(client, name="tiny", num_draws=400, seed=5)
        assert (again.status_code, again.json()["id"]) == (201, own_chain.plan.id)
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"
        problem(client.get("/v1/jobs/plans.tiny@000000000000"), 404, "artifact-not-found")
        problem(client.get("/v1/jobs/nonsense"), 422, "invalid-request")


def test_more_jobs_than_may_wait_are_refused_and_the_same_one_is_joined(workspace):
    jobs = Jobs(workspace, Scrubber(workspace.path), Metrics(), most_waiting=2)  # not started: everything waits
    refs = [Ref("plans", "x", f"{i:012x}") for i in range(3)]
    entry, begun = jobs.submit(refs[0], lambda: None)
    assert begun
    assert jobs.submit(refs[0], lambda: None) == (entry, False)
    jobs.submit(refs[1], lambda: None)
    with pytest.raises(Overloaded):
        jobs.submit(refs[2], lambda: None)
    assert [job.state for job in jobs.list()] == ["waiting", "waiting"]


def test_many_requests_for_one_plan_at_once_make_it_once(chain, served):
    with served(chain.workspace) as client:
        answers = []
        ask = lambda: answers.append(_ask(client, name="crowd", num_draws=120, seed=3))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
