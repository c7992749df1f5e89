"""The stage: rows of a real chain become a checkpoints artifact."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_rows import artifact_of

from dataforge.corpus import Documents
from dataforge.errors import DataforgeError, PastTheEnd, StreamError
from dataforge.plans import SamplingPlan
from dataforge.plans.members import write_members
from dataforge.rows.pack import PackConfig, pack
from dataforge.shards import Shards
from dataforge.shards.tokenize import tokenize
from dataforge.stage import Forecast, Run
from dataforge.tokenizers.stages import TrainTokenizerConfig, train_tokenizer
from dataforge.trainer import TrainConfig
from dataforge.trainer.metrics import read_metrics
from dataforge.trainer.train import Place, open_model, train
from dataforge.workspace import Artifact, Workspace

MODEL = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "num_experts": 4, "expert_size": 32}
CONFIG = TrainConfig(model=MODEL, steps=12, global_batch=4, eval_every=6, baselines=True, warmup_steps=2)
PLACE = Place(device="cpu", num_threads=1, checkpoint_every=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with documents (some held out), shards, a plan and rows; made once, copied for each test."""
    from dataforge.corpus import IngestConfig, ingest

    folder = tmp_path_factory.mktemp("chain")
    workspace = Workspace(folder / "workspace")
    corpus = Path(__file__).parents[1] / "corpus_tiny"
    documents = ingest(workspace, [corpus], name="tiny", config=IngestConfig(holdout=0.1))
    tokenizer = train_tokenizer(workspace, documents, name="tiny", config=TrainTokenizerConfig(vocab_size=400))
    shards = tokenize(workspace, documents, tokenizer, name="tiny")
    numbers = Documents(documents).training_numbers()
    labels = numbers % 3
    plan = SamplingPlan.build(np.bincount(labels, minlength=3), num_draws=60, max_repeats=4, seed=0)

    def write_plan(path):
        plan.save(path)
        write_members(path / "members.bin", 3, lambda: [(numbers, labels)])

    rows = pack(
        workspace, artifact_of(workspace, "plans", write_plan), shards, name="tiny", config=PackConfig(row_length=32)
    )
    return workspace.path, rows.ref


@pytest.fixture
def chain(made, tmp_path):
    """The test's own copy: (workspace, rows)."""
    workspace = Workspace(shutil.copytree(made[0], tmp_path / "workspace"))
    return workspace, workspace.open(made[1])


def test_rows_become_a_sound_artifact_with_its_lineage(chain):
    workspace, rows = chain
    artifact = train(workspace, rows, name="tiny", config=CONFIG, place=PLACE)
    assert artifact.kind == "checkpoints"
    assert workspace.verify(artifact) == []
    assert {a.kind for a in workspace.lineage(artifact)} >= {"checkpoints", "rows", "plans", "shards", "documents"}
    assert artifact.counts["steps"] == 12
    assert artifact.counts["tokens_trained"] == 12 * 4 * 32
    assert not (artifact.path / ".scratch").exists()
    metrics = read_metrics(artifact.file("metrics.jsonl"))
    assert [row["step"] for row in metrics] == list(range(1, 13))
    assert all("tokens_per_s" in row for row in metrics)
    assert "seconds" not in json.loads(artifact.file("metrics.jsonl").read_text().splitlines()[0])
    found = json.loads(artifact.file("eval.json").read_text())
    documents = workspace.open("documents/tiny")
    numbers = Documents(documents).held_out_numbers()
    shards = Shards(rows.input("shards"))
    assert len(numbers) > 5
    assert found["documents"] == len(numbers)
    assert found["bytes"] == int(shards.text_bytes_of(numbers).sum())
    assert found["tokens"] == int(shards.lengths(numbers).sum())
    assert found["bits_per_byte"] == metrics[-1]["held_out"]["bits_per_byte"]
    assert found["baselines"]["bigram"]["bits_per_byte"] < found["baselines"]["unigram"]["bits_per_byte"]
    assert found["baselines"]["unigram"]["tokens"] == found["tokens"]


def test_the_artifacts_model_gives_the_loss_that_was_reported(chain):
    from dataforge.trainer import HeldOut, evaluate

    workspace, rows = chain
    artifact = train(workspace, rows, name="tiny", config=CONFIG, place=PLACE)
    model, shards = open_model(artifact), Shards(rows.input("shards"))
    numbers = Documents(workspace.open("documents/tiny")).held_out_numbers().tolist()
    documents = [(shards.tokens(n), int(shards.text_bytes_of(n)[0])) for n in numbers]
    found = evaluate(model, HeldOut(documents, shards.bos_id, shards.eos_id), row_length=32, rows_at_once=2)
    assert found.bits_per_byte == pytest.approx(artifact.counts["held_out_bits_per_byte"], rel=1e-6)


def test_the_same_request_is_found_and_another_one_is_another_artifact(chain):
    workspace, rows = chain
    first = train(workspace, rows, name="tiny", config=CONFIG, place=PLACE)
    began = time.perf_counter()
    # Where the rows come from and how often checkpoints are made is not part of what is asked for.
    again = train(workspace, rows, name="other", config=CONFIG, source=str(rows.path), place=Place(device="cpu"))
    assert again.id == first.id
    assert time.perf_counter() - began < 1
    assert train(workspace, rows, name="tiny", config=replace(CONFIG, seed=1), place=PLACE).id != first.id


def test_a_source_with_other_rows_is_refused(chain):
    workspace, rows = chain
    other = pack(workspace, rows.input("plan"), rows.input("shards"), name="other", config=PackConfig(row_length=40))
    with pytest.raises(StreamError, match=f"{rows.ref} has"):
        train(workspace, rows, name="tiny", config=CONFIG, source=str(other.path), place=PLACE)


def test_more_steps_than_rows_are_refused_before_anything_is_made(chain):
    workspace, rows = chain
    with pytest.raises(PastTheEnd, match="there are"):
        train(workspace, rows, name="tiny", config=replace(CONFIG, steps=10**6), place=PLACE)
    assert not (workspace.path / "checkpoints").exists()


def test_a_dry_run_makes_nothing(chain):
    workspace, rows = chain
    told = train(workspace, rows, name="tiny", config=CONFIG, run=Run(dry_run=True))
    assert isinstance(told, Forecast)
    assert not (workspace.path / "checkpoints").exists()
    assert train(workspace, told, name="tiny", config=CONFIG, run=Run(dry_run=True)).id is None


def test_without_held_out_documents_there_is_no_evaluation(chain):
    workspace, rows = chain
    corpus = Path(__file__).parents[1] / "corpus_tiny"
    from dataforge.corpus import ingest

    none_held = ingest(workspace, [corpus], name="all")
    artifact = train(workspace, rows, name="tiny", config=CONFIG, documents=none_held, place=PLACE)
    assert [part["path"] for part in artifact.parts("eval.json")] == []
    assert "held_out_bits_per_byte" not in artifact.counts


CHILD = """
import sys
from dataforge.trainer import TrainConfig
from dataforge.trainer.train import Place, train
from dataforge.workspace import Workspace
workspace = Workspace(sys.argv[1])
config = TrainConfig(**{config!r})
place = Place(device="cpu", num_threads=1, checkpoint_every=3)
print(train(workspace, workspace.open(sys.argv[2]), name="tiny", config=config, place=place).content)
"""


def child(workspace, rows, config):
    plain = {"model": dict(config.model), "steps": config.steps, "global_batch": config.global_batch}
    plain |= {"eval_every": config.eval_every, "baselines": config.baselines, "warmup_steps": config.warmup_steps}
    code = CHILD.replace("{config!r}", repr(plain))
    command = [sys.executable, "-c", code, str(workspace.path), rows.ref]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_stage_goes_on_to_the_same_content(chain, tmp_path):
    workspace, rows = chain
    config = replace(CONFIG, steps=30)
    whole = Workspace(shutil.copytree(workspace.path, tmp_path / "undisturbed"))
    expected = train(whole, whole.open(rows.ref), name="tiny", config=config, place=PLACE)
    process = child(workspace, rows, config)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = list(workspace.path.glob("checkpoints/*/.scratch/run/metrics.jsonl"))
        if found and len(read_metrics(found[0])) >= 17:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = train(workspace, rows, name="tiny", config=config, place=PLACE)
    assert resumed.content == expected.content
    assert workspace.verify(resumed) == []


def test_cuts_while_files_are_published_end_in_the_same_content(chain, tmp_path, monkeypatch):
    from dataforge.workspace import parts

    workspace, rows = chain
    expected = None
    for cut in range(20):
        here = Workspace(shutil.copytree(workspace.path, tmp_path / f"cut{cut}"))
        left = [cut]
        publish = parts.publish

        def cutting(path, final, left=left, publish=publish):
            if final.parent.parent.name == "checkpoints":
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
            return publish(path, final)

        with monkeypatch.context() as patch:
            patch.setattr(parts, "publish", cutting)
            try:
                first = train(here, here.open(rows.ref), name="tiny", config=CONFIG, place=PLACE)
            except KeyboardInterrupt:
                first = None
        artifact = train(here, here.open(rows.ref), name="tiny", config=CONFIG, place=PLACE)
        expected = expected or artifact.content
        assert artifact.content == expected
        assert here.verify(artifact) == []
        if first is not None:
            break
    assert first is not None
    assert cut == 14  # the request, six files with their sidecars, the manifest: each was cut once


def test_two_processes_that_train_the_same_harm_nothing(chain):
    workspace, rows = chain
    both = [child(workspace, rows, CONFIG) for _ in range(2)]
    contents = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert contents[0] == contents[1]
    assert len(workspace.artifacts("checkpoints")) == 1
    assert workspace.verify(workspace.artifacts("checkpoints")[0]) == []


def test_the_command_trains_and_prints_its_reference(chain, capsys):
    from dataforge.cli import run

    workspace, rows = chain
    options = ["--workspace", str(workspace.path), "--steps", "3", "--global-batch", "2", "--threads", "1"]
    options += ["--set", "model={hidden_size = 16, num_heads = 2, num_kv_heads = 1, num_layers = 1}"]
    assert run(["train", rows.ref, *options]) == 0
    told = capsys.readouterr()
    assert told.out.strip().startswith("checkpoints/tiny@")
    assert isinstance(workspace.open(told.out.strip()), Artifact)
    assert "step 3 of 3" in told.err


def test_the_command_refuses_a_setting_it_does_not_know(chain, capsys):
    from dataforge.cli import run

    workspace, rows = chain
    assert run(["train", rows.ref, "--workspace", str(workspace.path), "--set", "stps=3"]) == 1
    assert "'steps'" in capsys.readouterr().err


def test_errors_have_three_parts(chain):
    workspace, rows = chain
    with pytest.raises(DataforgeError) as error:
        train(workspace, rows, name="tiny", config=replace(CONFIG, steps=10**6), place=PLACE)
    assert error.value.what
    assert error.value.where
    assert error.value.hint


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_stage_runs_on_a_gpu(chain):
    workspace, rows = chain
    artifact = train(workspace, rows, name="gpu", config=CONFIG, place=Place(device="cuda"))
    assert workspace.verify(artifact) == []
