"""The deployment files lint, parse, and name things that exist. Building them needs a container engine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
COMMANDS = {
    *("ingest", "filter", "dedup", "embed", "cluster", "plan", "train-tokenizer", "tokenize", "pack", "serve", "train"),
    *("surgery", "run", "status", "show", "list", "lineage", "verify", "diff", "encode", "simulate", "compare-routers"),
    *("export", "forget", "gc", "keys"),
}


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, its arguments on one line) of a Dockerfile, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found = []
    for line in filter(str.strip, text.split("\n")):
        word, _, rest = line.strip().partition(" ")
        found.append((word, rest.strip()))
    return found


def arguments(path: Path, word: str) -> list[str]:
    return [rest for found, rest in instructions(path) if found == word]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines) if version}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ray_cluster() -> dict[str, Any]:
    told = yaml.safe_load_all((DEPLOY / "kubernetes" / "ray-cluster.yaml").read_text(encoding="utf-8"))
    return {document["kind"]: document for document in told}


def test_there_is_a_cpu_and_a_gpu_image():
    assert [path.name for path in DOCKERFILES] == ["gpu.Dockerfile", "service.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path):
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (it is in the dev extra)")
    done = subprocess.run([hadolint, "--no-color", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_has_two_stages_on_a_pinned_base_and_no_root(path):
    bases = [re.sub(r" AS .*", "", base) for base in arguments(path, "FROM")]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)
    last_stage = path.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    user = re.findall(r"^USER (\S+)$", last_stage, re.MULTILINE)[-1]
    assert int(user) >= 1000
    assert f"--uid {user} " in last_stage
    assert "g++" not in last_stage


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_pipes_no_download_into_a_shell_and_installs_under_the_constraints(path):
    assert not re.search(r"(curl|wget)\b[^|&;]*\|\s*(sudo\s+)?(ba|da|z)?sh\b", " ".join(arguments(path, "RUN")))
    assert "PIP_CONSTRAINT=/src/constraints.txt" in " ".join(arguments(path, "ENV"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_asks_for_extras_that_exist_and_are_pinned(path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (asked,) = re.findall(r'"\$\{wheel\}\[([\w,]+)\]"', " ".join(arguments(path, "RUN")))
    assert set(asked.split(",")) <= set(extras)
    assert {"cpu", "gpu"} & set(asked.split(",")) == {"gpu" if path.name.startswith("gpu") else "cpu"}
    assert "faiss-gpu-cu12" in pins()
    assert "faiss-cpu" in pins()


def test_docker_build_context_holds_what_the_wheel_is_made_of_and_no_more():
    rules = [rule for rule in (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n") if rule[:1] not in "#"]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", "CMakeLists.txt", "constraints.txt", project["project"]["readme"]}
    needed |= {*project["project"]["license-files"], *project["tool"]["scikit-build"]["wheel"]["packages"].values()}
    assert let_in == needed
    assert all((ROOT / name).exists() for name in let_in)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_runs_a_command_that_exists(path):
    (entry,), (command,) = arguments(path, "ENTRYPOINT"), arguments(path, "CMD")
    assert json.loads(entry) == ["dataforge"]
    assert json.loads(command)[0] in COMMANDS


def test_compose_has_a_service_and_a_worker_on_one_volume_running_commands_that_exist(compose):
    service, worker = compose["services"]["service"], compose["services"]["worker"]
    assert service["command"][0] == "serve"
    assert worker["command"][0] == "run"
    for told in (service, worker):
        assert told["command"][0] in COMMANDS
        assert "workspace:/data/workspace" in told["volumes"]
        assert (DEPLOY / told["build"]["context"] / told["build"]["dockerfile"]).is_file()
        assert told["cap_drop"] == ["ALL"]
        mounts = [mount.split(":")[0] for mount in told["volumes"] if mount.startswith(".")]
        assert all((DEPLOY / mount).is_dir() for mount in mounts)
    assert "workspace" in compose["volumes"]


def test_compose_publishes_on_loopback_only_and_turns_no_check_off(compose):
    for told in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in told.get("ports", []))
        assert "--no-auth" not in told["command"]
        assert "privileged" not in told


def test_ray_cluster_runs_the_pinned_ray_in_our_images_and_not_as_root(ray_cluster):
    cluster = ray_cluster["RayCluster"]["spec"]
    assert cluster["rayVersion"] == pins()["ray"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = []
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        images.append(container["image"])
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == ray_cluster["PersistentVolumeClaim"]["metadata"]["name"]
    assert images == ["dataforge:cpu", "dataforge:cpu", "dataforge:gpu"]
    assert ray_cluster["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_readme_names_files_and_commands_that_exist():
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE):
        assert (DEPLOY / name).is_file(), name
    used = []
    for line in re.findall(r"docker compose ([^`\n]+)", text):
        words = shlex.split(line)
        if "run" in words:
            used.append(words[words.index("--rm") + 2])
    assert used == ["keys", "status"]
    assert set(used) <= COMMANDS
