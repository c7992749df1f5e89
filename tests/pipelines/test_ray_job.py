"""`ray job submit` from a checkout with a wheel installed, and a driver that is killed. Minutes: `make soak`."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from stumbling_stage import lengths
from tiny_model import make_tiny_model

from dataforge.recipe import load_recipe, run_recipe
from dataforge.workspace import Artifact, Workspace

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
CARRIED = ("dataforge", "pipelines", "services", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE")
RECIPE = """
name = "web"
[ingest]
paths = ["../pipelines/sample/data"]
holdout = 0.05
[dedup]
[embed]
model = "{model}"
dimensions = 12
[cluster]
num_clusters = 6
[train-tokenizer]
vocab_size = 400
[tokenize]
[plan]
num_draws = 300
[pack]
row_length = 64
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with a recipe in `job/`, over the bundled sample and a model of some kilobytes."""
    folder = tmp_path_factory.mktemp("job") / "checkout"
    for name in (*CARRIED, ".rayignore", ".gitignore"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, folder)
    (folder / "job").mkdir()
    model = make_tiny_model(folder.parent / "model")
    (folder / "job" / "recipe.toml").write_text(RECIPE.format(model=model))
    return folder


@pytest.fixture(scope="module")
def expected(checkout: Path) -> tuple[list[str], dict[str, str]]:
    """References in order, and content by id, of a run in this process."""
    workspace = Workspace(checkout.parent / "here")
    made = run_recipe(workspace, load_recipe(checkout / "job" / "recipe.toml"))
    return [artifact.ref for artifact in made.values()], contents(workspace)


def contents(workspace: Workspace) -> dict[str, str]:
    return {f"{artifact.kind}/{artifact.id}": artifact.content for artifact in workspace.artifacts()}


@pytest.fixture(scope="module")
def python(checkout: Path) -> Path:
    """The interpreter of a new environment that has a wheel of the checkout, and this one's other packages."""
    wheels, home = checkout.parent / "wheels", checkout.parent / "venv"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), str(checkout)]
    subprocess.run(built, check=True, timeout=900)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=120)
    python = home / "bin" / "python"
    (wheel,) = wheels.glob("*.whl")
    # Before the other packages are seen: pip would take this environment's editable install for what is asked for.
    installed = [*pip, "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(installed, check=True, timeout=120)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray head as an operator starts it, on loopback. Gives the environment that reaches it."""
    ports = {name: free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")}
    environment = {
        **os.environ,
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['dashboard-port']}",
    }
    environment.pop("DATAFORGE_WORKSPACE", None)
    command = [str(python), "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--{name}={port}" for name, port in ports.items()] + [f"--ray-client-server-port={free_port()}"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats"]
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(environment)
        yield environment
    finally:
        head.terminate()
        head.wait(60)


def wait_for(environment: dict[str, str]) -> None:
    asked = urllib.request.Request(
        environment["RAY_API_SERVER_ADDRESS"] + "/api/version",
        headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"},
    )
    ended = time.monotonic() + 120
    while True:
        with contextlib.suppress(urllib.error.URLError):
            urllib.request.urlopen(asked, timeout=5).close()
            return
        assert time.monotonic() < ended, "the Ray head did not start"
        time.sleep(0.5)


def submit(python: Path, cluster: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", ".", "--"]
    command += ["python", "-m", "dataforge.pipelines.flow", *arguments]
    return subprocess.run(command, env=cluster, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def test_a_job_submitted_from_a_checkout_runs_the_installed_wheel_and_gives_the_same_artifacts(
    checkout: Path, python: Path, cluster: dict[str, str], expected: tuple[list[str], dict[str, str]]
) -> None:
    refs, content = expected
    done = submit(python, cluster, checkout, "job/recipe.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line in refs] == refs
    workspace = Workspace(Path(cluster["HOME"]) / "dataforge-workspace", create=False)
    assert contents(workspace) == content
    assert [problem for artifact in workspace.artifacts() for problem in workspace.verify(artifact)] == []
    again = submit(python, cluster, checkout, "job/recipe.toml")
    assert again.returncode == 0
    assert again.stdout.count("was there already") == len(content)
    relative = submit(python, cluster, checkout, "job/recipe.toml", "--workspace", "here")
    assert relative.returncode == 1
    assert "a job's working directory is a copy that Ray deletes" in relative.stdout


def test_without_rayignore_the_source_folder_hides_the_wheel(
    checkout: Path, python: Path, cluster: dict[str, str]
) -> None:
    """Why the file is there; if this test fails one day, the file may go."""
    bare = checkout.parent / "bare"
    shutil.copytree(checkout, bare, ignore=shutil.ignore_patterns(".rayignore"))
    done = submit(python, cluster, bare, "job/recipe.toml")
    assert done.returncode == 1
    assert "No module named 'dataforge.pipelines'" in done.stdout


def test_a_driver_that_is_stopped_or_killed_takes_its_ray_along_and_the_same_command_goes_on(
    checkout: Path, expected: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    refs, content = expected
    command = [sys.executable, "-m", "dataforge.pipelines.flow", str(checkout / "job" / "recipe.toml")]
    command += ["--workspace", str(tmp_path / "stopped")]
    chance, mark = random.Random(0), secrets.token_hex(8)
    codes = []
    for signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        driver = subprocess.Popen(
            command, env={**os.environ, "STARTED_BY": mark}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert driver.stderr is not None
        while "to make" not in (line := driver.stderr.readline()) and line:
            pass
        time.sleep(chance.uniform(0, 10))
        driver.send_signal(signum)
        driver.communicate(timeout=60)
        codes.append(driver.returncode)
        ended = time.monotonic() + 150  # agents that were just starting look for a killed Ray for a minute
        while processes_with(mark) and time.monotonic() < ended:
            time.sleep(0.5)
        assert not processes_with(mark), "Ray processes outlived their driver"
    assert codes == [-signal.SIGKILL, 130, -signal.SIGKILL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.splitlines() == refs
    workspace = Workspace(tmp_path / "stopped")
    assert contents(workspace) == content
    assert workspace.unfinished() == []


ON_TWO_NODES = """
import sys
import time
from pathlib import Path
from ray.cluster_utils import Cluster
from stumbling_stage import lengths
from dataforge.pipelines.ray_runner import RayRunner
from dataforge.workspace import Workspace

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
for _ in range(2):
    cluster.add_node(num_cpus=1)
workspace, notes = Workspace(sys.argv[1]), Path(sys.argv[2])
notes.mkdir()
with RayRunner(cluster.address, patience_s=30) as runner:
    made = lengths(workspace, workspace.open(sys.argv[3]), runner, notes, trouble="kill-node", parts=8)
    import ray
    while sum(node["Alive"] for node in ray.nodes()) == 3:  # the head takes its time to notice
        time.sleep(0.5)
    print(made.content)
cluster.shutdown()
"""


def test_a_node_that_dies_in_the_middle_of_a_part_changes_nothing(
    workspace: Workspace, documents: Artifact, tmp_path: Path
) -> None:
    """Three raylets on this machine: a head without CPUs, and two nodes, of which a part kills one."""
    (tmp_path / "notes").mkdir()
    expected = lengths(Workspace(tmp_path / "here"), documents, None, tmp_path / "notes", parts=8)
    command = [sys.executable, "-c", ON_TWO_NODES, str(workspace.path), str(tmp_path / "notes-ray"), documents.ref]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [expected.content]
    assert (tmp_path / "notes-ray" / "stumbled").exists()
    assert "it is made again" in done.stderr


def processes_with(mark: str) -> list[int]:
    """Processes that were started with that variable in their environment and are not over."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found
