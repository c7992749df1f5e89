"""Parts on Ray: the same ids and content as in this process, whatever dies on the way."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import stumbling_stage
from stumbling_stage import lengths, told_by

from dataforge.corpus import IngestConfig, ingest
from dataforge.dedup import dedup
from dataforge.errors import ConfigError, HeldOut, MixedEnvironment, WorkspaceError
from dataforge.pipelines.ray_runner import RayRunner
from dataforge.stage import Run
from dataforge.workspace import Artifact, Workspace


@pytest.fixture
def cluster(cluster: Any) -> Any:
    """Workers cannot import the stage of these tests: it is sent to them whole."""
    cluster.cloudpickle.register_pickle_by_value(stumbling_stage)
    return cluster


@pytest.fixture
def runner(cluster: Any) -> RayRunner:
    return RayRunner(retry_wait_s=0.05)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture
def expected(tmp_path: Path, documents: Artifact) -> Artifact:
    """What a run in this process makes."""
    notes = tmp_path / "notes-here"
    notes.mkdir()
    return lengths(Workspace(tmp_path / "here"), documents, None, notes)


def leftovers(workspace: Workspace) -> list[Path]:
    return list(workspace.path.rglob("*.tmp"))


def test_ingest_and_dedup_give_the_ids_and_content_of_a_run_without_ray(
    tmp_path: Path, corpus: Path, runner: RayRunner
) -> None:
    made = []
    for name, run in (("here", Run()), ("ray", Run(runner=runner))):
        workspace = Workspace(tmp_path / name)
        documents = ingest(workspace, [corpus], name="web", config=IngestConfig(holdout=0.05), run=run)
        dedup(workspace, documents, name="web", run=run)
        made.append({f"{artifact.kind}/{artifact.id}": artifact.content for artifact in workspace.artifacts()})
        assert [problem for artifact in workspace.artifacts() for problem in workspace.verify(artifact)] == []
    assert len(made[0]) == 4
    assert made[0] == made[1]


def test_a_worker_killed_in_the_middle_of_a_part_changes_nothing_and_leaves_stdout_to_the_answer(
    workspace: Workspace,
    documents: Artifact,
    runner: RayRunner,
    notes: Path,
    expected: Artifact,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = lengths(workspace, documents, runner, notes, trouble="kill")
    assert (notes / "stumbled").exists()
    assert (made.id, made.content) == (expected.id, expected.content)
    assert workspace.verify(made) == []
    assert leftovers(workspace) == []
    told = capsys.readouterr()
    while "worker died" not in told.err:  # Ray says so from a thread of its own
        time.sleep(0.05)
        told = capsys.readouterr()
    assert told.out == ""


@pytest.mark.parametrize("trouble", ["EIO", "ESTALE"])
def test_a_passing_error_of_the_file_system_is_tried_again(
    workspace: Workspace, documents: Artifact, runner: RayRunner, notes: Path, expected: Artifact, trouble: str
) -> None:
    assert lengths(workspace, documents, runner, notes, trouble=trouble).content == expected.content
    assert (notes / "stumbled").exists()


@pytest.mark.parametrize("trouble", ["ENOSPC", "ENOENT"])
def test_an_error_of_the_file_system_that_stays_is_raised_at_once(
    workspace: Workspace, documents: Artifact, runner: RayRunner, notes: Path, trouble: str
) -> None:
    with pytest.raises(OSError, match="a/file") as caught:
        lengths(workspace, documents, runner, notes, trouble=trouble)
    assert caught.value.errno == getattr(errno, trouble)
    assert leftovers(workspace) == []


def test_a_stated_error_comes_back_as_itself_and_finished_parts_stay(
    workspace: Workspace, documents: Artifact, cluster: Any, notes: Path, expected: Artifact
) -> None:
    one_by_one = RayRunner(max_in_flight=1)
    with pytest.raises(HeldOut) as caught:
        lengths(workspace, documents, one_by_one, notes, trouble="held-out")
    assert type(caught.value) is HeldOut
    assert (caught.value.what, caught.value.where, caught.value.hint) == (
        "2 of 9 draws are held out",
        "plans/web",
        "draw others",
    )
    (begun,) = workspace.unfinished()
    assert begun["done"] == 1
    first = told_by(notes, "part-00000")
    assert lengths(workspace, documents, one_by_one, notes, trouble="held-out").content == expected.content
    assert told_by(notes, "part-00000") == first


def test_a_part_that_kills_its_worker_every_time_is_given_up_with_the_number_of_tries(
    workspace: Workspace, documents: Artifact, cluster: Any, notes: Path
) -> None:
    with pytest.raises(WorkspaceError, match=r"part-00001.jsonl failed 3 times: WorkerCrashedError") as caught:
        lengths(workspace, documents, RayRunner(max_retries=2, retry_wait_s=0.01), notes, trouble="always-kill")
    assert "finished parts are kept" in str(caught.value.hint)
    assert str(caught.value.where).startswith("lengths/web@")


def test_memory_cpus_and_threads_of_a_part_are_what_was_asked_for(
    workspace: Workspace, documents: Artifact, cluster: Any, notes: Path
) -> None:
    lengths(workspace, documents, RayRunner(num_cpus=2, memory_bytes=300 << 20), notes)
    told = told_by(notes)
    assert told["resources"] == {"CPU": 2.0, "memory": float(300 << 20)}
    assert told["threads"] == "2"
    assert told["pid"] != os.getpid()


def test_each_worker_process_opens_a_stage_once(
    workspace: Workspace, documents: Artifact, runner: RayRunner, notes: Path
) -> None:
    lengths(workspace, documents, runner, notes, parts=12)
    processes = {told_by(notes, f"part-{index:05d}")["opened_in"] for index in range(12)}
    assert len(list(notes.glob("opened-*"))) == len(processes) <= 2


def test_a_gpu_stage_runs_in_actors_that_keep_their_worker_and_are_replaced_when_killed(
    workspace: Workspace, documents: Artifact, runner: RayRunner, notes: Path
) -> None:
    made = lengths(workspace, documents, runner, notes, parts=6, world="cuda", trouble="kill")
    told = [told_by(notes, f"part-{index:05d}") for index in range(6)]
    assert all(one["resources"]["GPU"] == 1.0 for one in told)
    assert len({one["actor"] for one in told}) == 2  # part-00000 in the first, which died in part-00001
    assert len(list(notes.glob("opened-*"))) == 2
    assert workspace.verify(made) == []


def test_a_part_that_no_node_can_hold_is_refused_and_not_waited_for(
    workspace: Workspace, documents: Artifact, cluster: Any, notes: Path
) -> None:
    with pytest.raises(WorkspaceError, match=r"asks for 1 CPUs, 4096.0 GiB; the largest of 1 nodes has 2 CPUs"):
        lengths(workspace, documents, RayRunner(memory_bytes=4 << 40, patience_s=0), notes)


def test_a_node_that_would_make_other_bytes_is_refused_unless_mixing_is_allowed(
    workspace: Workspace, documents: Artifact, cluster: Any, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_WORLD", "elsewhere")
    with pytest.raises(MixedEnvironment, match=r"would make parts with \{'device': 'here'\}"):
        lengths(workspace, documents, RayRunner(), notes, world="read")
    assert lengths(workspace, documents, RayRunner(allow_mixed=True), notes, world="read")


@pytest.mark.parametrize("trouble", ["wait", "wait-natively"])
def test_an_interrupted_run_keeps_its_finished_parts_and_stops_the_others(
    workspace: Workspace, documents: Artifact, cluster: Any, notes: Path, expected: Artifact, trouble: str
) -> None:
    def interrupt() -> None:
        while not (notes / "stumbled").exists() and not given_up.wait(0.02):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    given_up = threading.Event()
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            lengths(workspace, documents, RayRunner(max_in_flight=1), notes, trouble=trouble)
    finally:
        given_up.set()
    (begun,) = workspace.unfinished()
    assert begun["done"] == 1
    assert not (workspace.path / "names" / "lengths").exists()
    assert lengths(workspace, documents, RayRunner(), notes, trouble=trouble).content == expected.content
    assert leftovers(workspace) == []


def test_settings_that_cannot_be_are_refused() -> None:
    for told in ({"max_in_flight": 0}, {"max_retries": -1}, {"num_gpus": 0}, {"patience_s": -1}):
        with pytest.raises(ConfigError):
            RayRunner(**told)


def test_the_ray_of_this_machine_is_on_loopback_alone_and_asks_for_a_token(cluster: Any) -> None:
    assert [node["NodeManagerAddress"] for node in cluster.nodes()] == ["127.0.0.1"]
    assert cluster.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    assert cluster._raylet.get_authentication_mode() == cluster._raylet.AuthenticationMode.TOKEN
    assert not {"RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"} & set(os.environ)
