"""Health: alive while the loop turns, ready while the workspace is there and nothing drains."""


def test_a_service_over_a_workspace_is_alive_and_ready(open_client):
    assert open_client.get("/livez").json() == {"status": "ok", "checks": {}}
    told = open_client.get("/readyz").json()
    assert told == {"status": "ok", "checks": {"drain": "ok", "workspace": "ok", "keys": "ok"}}


def test_a_workspace_that_is_gone_makes_it_not_ready_but_alive(own_chain, served, problem):
    with served(own_chain.workspace) as client:
        (own_chain.workspace.path / "dataforge.json").unlink()
        told = problem(client.get("/readyz"), 503, "not-ready")
        assert "workspace: out of reach" in told["detail"]
        assert client.get("/livez").status_code == 200


def test_a_drain_makes_it_not_ready_and_goes_on_serving(own_chain, served, problem):
    with served(own_chain.workspace) as client:
        client.app.state.service.drain.begin()
        assert "draining" in problem(client.get("/readyz"), 503, "not-ready")["detail"]
        assert client.get("/v1/rows/tiny").status_code == 200


def test_every_answer_has_an_id_of_its_own(open_client):
    ids = {open_client.get("/livez").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
