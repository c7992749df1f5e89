"""docs/09-serve.md: its blocks run, its routes and limits are those of the code."""

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from dataforge.services.keys import SCOPES
from dataforge.services.server import running
from dataforge.services.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "09-serve.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_blocks_at_the_top_run_one_after_the_other(own_chain):
    (_, first), (_, ask), (_, program) = BLOCKS[:3]
    (spelled,) = re.findall(r"\$\((dataforge keys [^)]*)\)", first)
    make_key = shlex.split(spelled)[1:]
    folder = str(own_chain.workspace.path)
    command = [sys.executable, "-m", "dataforge.cli", *make_key, "--workspace", folder]
    key = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    own_chain.workspace.point("clusters", "web", own_chain.clusters.id)
    own_chain.workspace.point("rows", "web", own_chain.rows.id)
    with running(Settings(workspace=own_chain.workspace.path, port=0, metrics_port=0)) as bound:
        told, (shown,) = _curl(ask, bound.url, key)
        assert set(told) == set(json.loads(shown))
        names: dict[str, Any] = {"key": key, "rank": 0, "world_size": 1}
        exec(program.replace("http://127.0.0.1:8765", bound.url), names)
        with names["loader"] as loader:
            assert sum(len(batch.token_ids) for batch in loader) == loader.num_rows


def _curl(block, url, key):
    """What the block's curl command would get, asked without curl, and the lines it is said to print."""
    command, *shown = block.replace("\\\n", " ").removeprefix("$ ").splitlines()
    words = shlex.split(command.replace("$DATAFORGE_API_KEY", key))
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    (body,) = (json.loads(words[i + 1]) for i, word in enumerate(words) if word == "-d")
    body["config"]["num_draws"] = 400  # the page's corpus is larger
    path = words[-1].removeprefix("http://127.0.0.1:8765")
    request = urllib.request.Request(url + path, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201
        return json.loads(answer.read()), shown


def test_every_route_and_scope_of_the_page_is_one_and_none_is_missing(client):
    table = [line.split("|")[1:3] for line in PAGE.splitlines() if line.startswith("| `")]
    told = set()
    for routes, scope in table:
        for route in re.findall(r"`((?:GET|POST) [^`]*)`", routes):
            kinds = re.search(r"\{([a-z,]+,[a-z,]+)\}", route)
            told |= {route.replace(kinds[0], kind) for kind in kinds[1].split(",")} if kinds else {route}
            assert scope.strip(" `") in SCOPES or scope.strip() in ("no key", "any key"), route
    described = client.get("/openapi.json").json()["paths"]
    real = {f"{method.upper()} {path}" for path, item in described.items() for method in item}
    six = ("documents", "clusters", "tokenizers", "shards", "rows")
    spelled = {route.replace("{job_id}", "{id}").replace("{row}", "{i}") for route in real}
    spelled = {route for route in spelled if route not in {f"GET /v1/{kind}/{{ref}}" for kind in six}}
    assert told - {"GET /v1/{kind}/{ref}", "GET /openapi.json"} == spelled


@pytest.mark.parametrize("name", re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE))
def test_every_limit_of_the_page_is_a_setting_with_that_default(name):
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    default = Settings.model_fields[name.lower()].get_default(call_default_factory=True)
    if name != "GATHER_THREADS":
        number = re.findall(r"[\d.]+", line.split("|")[2])[0]
        assert float(number) * (2**20 if "MiB" in line else 1) == default
