"""The OpenAPI description, and requests made from it: no 5xx, every answer described, whatever is sent."""

import contextlib

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from dataforge.services.server import running
from dataforge.services.settings import Settings


@pytest.fixture(scope="module")
def api(chain, key):
    """The description of a running service, for generated requests."""
    with running(Settings(workspace=chain.workspace.path, port=0, metrics_port=0)) as bound:
        yield schemathesis.openapi.from_url(f"{bound.url}/openapi.json", headers={"Authorization": f"Bearer {key}"})


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_generated_requests_get_described_answers_and_never_a_5xx(api, key, mode):
    asked = 0
    for found in api.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            nonlocal asked
            asked += 1
            # A value may fit its schema and still name nothing: that is a 404 or 422, as described.
            told = {"Authorization": f"Bearer {key}"}
            response = case.call_and_validate(headers=told, excluded_checks=[checks.positive_data_acceptance])
            assert response.status_code < 500, response.content

        with contextlib.suppress(Unsatisfiable):  # nothing to get wrong in an operation without parameters
            ask()
    assert asked > 50, "the run asked for almost nothing"


def test_every_operation_has_an_id_a_key_and_its_problems(client):
    told = client.get("/openapi.json").json()
    ids = []
    for path, item in told["paths"].items():
        for operation in item.values():
            ids.append(operation["operationId"])
            if path in ("/livez", "/readyz"):
                continue
            assert operation["security"] == [{"ApiKey": []}]
            for status in ("401", "403", "422", "500", "503"):
                content = operation["responses"][status]["content"]
                assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert len(ids) == len(set(ids))
    assert {"buildPlan", "showPlan", "readWindow", "showRow", "listDocuments", "showTokenizers", "showJob"} <= set(ids)
    assert told["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in str(told["paths"])


def test_the_plan_settings_are_described_with_their_text(client):
    told = client.get("/openapi.json").json()["components"]["schemas"]["PlanRequest"]["properties"]["config"]
    assert told["properties"]["max_repeats"]["description"] == "Most times one document may be drawn."
    assert told["additionalProperties"] is False
