"""Step 10: rows become a trained model. One sequential job: all of it happens in `finish`, and goes on after a kill."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataforge.corpus import Documents
from dataforge.errors import PastTheEnd, StreamError
from dataforge.make import make
from dataforge.shards import Shards
from dataforge.stage import Inputs, Out, Part, PartOut, Run, Silent
from dataforge.streams import Loader
from dataforge.trainer.baselines import fit_baselines
from dataforge.trainer.checkpoint import MODEL_CONFIG, OPTIMIZER, STATE, WEIGHTS, Checkpoint
from dataforge.trainer.config import FitConfig, TrainConfig
from dataforge.trainer.evaluate import HeldOut, bits_with
from dataforge.trainer.folder_lock import folder_lock
from dataforge.trainer.loop import FitResult, environment, fit, pick_device
from dataforge.trainer.metrics import METRICS, TIMINGS, without_times
from dataforge.trainer.progress import NoProgress, progress_on
from dataforge.workspace import Artifact, Counts, Workspace
from dataforge.workspace import parts as files

EVALUATION = "eval.json"
"""Bits per byte on the held-out documents: the model's, and the baselines' under `baselines`."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run happens. Nothing here changes what comes out."""

    source: str | None = None
    """URL or folder to read the rows from; None reads the rows artifact itself. The same bytes, or an error."""
    api_key: str | None = None
    """For a URL."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`: a GPU if there is one."""
    num_threads: int | None = None
    """CPU threads; None leaves them as they are."""
    checkpoint_every: int = 50
    """Steps between checkpoints that a killed run goes on from."""


@dataclass(frozen=True)
class Train:
    """The stage. It has no parts of its own: step n needs step n - 1."""

    config: TrainConfig
    place: Place
    allow_mixed: bool = False
    shown: bool = False
    kind = "checkpoints"
    step = "train"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        return []

    def open_worker(self, inputs: Inputs) -> None:
        raise AssertionError("training has no parts")

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        raise AssertionError("training has no parts")

    def environment(self) -> dict[str, Any]:
        return environment(pick_device(self.place.device), self.place.num_threads)

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        rows: Artifact = inputs["rows"]
        shards = Shards(rows.input("shards"))
        documents = _HeldOutDocuments(inputs["documents"], shards)
        held_out = HeldOut(documents, shards.bos_id, shards.eos_id) if len(documents) else None
        # Two processes that make the same artifact take turns; the second finds every file made.
        with self._loader(rows) as loader, folder_lock(out.scratch):
            if out.has(METRICS):
                for name in (WEIGHTS, OPTIMIZER, MODEL_CONFIG, STATE, EVALUATION, METRICS):
                    if out.has(name):
                        out.keep(name)
            else:
                self._train(rows, loader, held_out, out)
        return _counts(out)

    def _train(self, rows: Artifact, loader: Loader, held_out: HeldOut | None, out: Out) -> None:
        result = fit(
            FitConfig(
                train=self.config,
                folder=out.scratch / "run",
                device=self.place.device,
                num_threads=self.place.num_threads,
                checkpoint_every=self.place.checkpoint_every,
                allow_mixed=self.allow_mixed,
            ),
            loader=loader,
            held_out=held_out,
            progress=progress_on(sys.stderr) if self.shown else NoProgress(),
        )
        for name in (WEIGHTS, OPTIMIZER, MODEL_CONFIG, STATE):
            _publish(out, name, result.checkpoint.folder / name)
        if held_out is not None:
            told = self._evaluation(rows, held_out, result)
            path = out.scratch / EVALUATION
            path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            _publish(out, EVALUATION, path)
        # The metrics come last: with them the artifact has everything.
        plain, timings = without_times(result.metrics, out.scratch)
        beside = files.temporary(out.folder / TIMINGS)
        shutil.copyfile(timings, beside)
        files.replace(beside, out.folder / TIMINGS)
        _publish(out, METRICS, plain)

    def _evaluation(self, rows: Artifact, held_out: HeldOut, result: FitResult) -> dict[str, Any]:
        assert result.evaluation is not None
        told: dict[str, Any] = {
            "bits_per_byte": result.evaluation.bits_per_byte,
            **asdict(result.evaluation),
            "baselines": {},
        }
        if self.config.baselines:
            held_out = held_out.thinned(self.config.eval_documents)
            vocab_size = result.model.config.vocab_size
            with self._loader(rows) as again:
                batches = ((batch.token_ids, batch.segments) for batch in again)
                unigram, bigram = fit_baselines(batches, vocab_size, eos_id=held_out.eos_id)
            for name, baseline in (("unigram", unigram), ("bigram", bigram)):
                found = bits_with(baseline.bits, held_out, vocab_size)
                told["baselines"][name] = {"bits_per_byte": found.bits_per_byte, **asdict(found)}
        return told

    def _loader(self, rows: Artifact) -> Loader:
        source = self.place.source or rows
        loader = Loader(
            source, global_batch=self.config.global_batch, steps=self.config.steps, api_key=self.place.api_key
        )
        found, wanted = loader.state_dict()["rows"], rows.content.removeprefix("sha256:")
        if found != wanted:
            loader.close()
            raise StreamError(
                f"the stream has rows {found[:12]}, {rows.ref} has {wanted[:12]}",
                where=str(self.place.source),
                hint="give the URL of these very rows, or train without one",
            )
        return loader


def train(
    workspace: Workspace,
    rows: Artifact,
    *,
    name: str,
    config: TrainConfig | None = None,
    source: str | None = None,
    documents: Artifact | None = None,
    place: Place | None = None,
    run: Run | None = None,
) -> Artifact:
    """A model trained on rows, evaluated on the held-out documents.

    The artifact holds `model.safetensors`, `optimizer.safetensors`, `model.json` (its shape), `state.json` (step and
    stream cursor), `metrics.jsonl` (one line a step) and, where documents are held out, `eval.json`. Seconds and rates
    are in `timings.jsonl` beside the manifest, outside its content.

    Args:
        workspace: where the artifact goes.
        rows: what to train on.
        name: the artifact's name.
        config: model, optimizer, number of steps.
        source: URL or folder to read the rows from; the same as `place.source`.
        documents: whose held-out documents to evaluate on; None takes those that the shards were made from.
        place: device, threads, and where the rows are read from.
        run: progress and `allow_mixed`; training is one job and has no runner.
    Raises:
        PastTheEnd: there are fewer rows than the steps need.
        StreamError: the source has other rows.
        TrainingError: the loss is not a number; the rows and documents are named.
        MixedEnvironment: a killed run would go on with another device class, library version or thread count.
    """
    config, run = config or TrainConfig(), run or Run()
    place = place or Place()
    if source is not None:
        place = Place(**{**asdict(place), "source": source})
    inputs = {"rows": rows}
    if isinstance(rows, Artifact):
        _refuse_too_many_steps(config, rows)
        inputs["documents"] = documents or rows.input("shards").input("documents")
    shown = not isinstance(run.progress, Silent)
    stage = Train(config, place, allow_mixed=run.allow_mixed, shown=shown)
    return make(workspace, stage, inputs, name=name, run=run)


def open_model(artifact: Artifact | Path | str) -> Any:
    """The trained Decoder of a `checkpoints` artifact, or of a checkpoint's folder, on the CPU in evaluation mode."""
    from dataforge.model import Decoder, ModelConfig

    found = Checkpoint.open(artifact.path if isinstance(artifact, Artifact) else artifact)
    model = Decoder(ModelConfig(**found.model_config()))
    model.load_state_dict(found.weights())
    return model.eval()


class _HeldOutDocuments(Sequence[tuple[np.ndarray, int]]):
    """Token ids and text bytes of the held-out documents, read from the shards one by one."""

    def __init__(self, documents: Artifact, shards: Shards) -> None:
        self._numbers = Documents(documents).held_out_numbers()
        self._shards = shards

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        number = int(self._numbers[index])
        return self._shards.tokens(number), int(self._shards.text_bytes_of(number)[0])


def _refuse_too_many_steps(config: TrainConfig, rows: Artifact) -> None:
    num_rows = rows.counts["rows"]
    there = -(-num_rows // config.global_batch)
    if config.steps is not None and config.steps > there:
        raise PastTheEnd(
            f"{config.steps:,} steps of {config.global_batch:,} rows were asked for, there are {num_rows:,} rows",
            where=rows.ref,
            hint=f"lower `steps` to {there:,}, or plan more draws",
        )


def _publish(out: Out, name: str, path: Path) -> None:
    """Make a finished file a part, or count it as one if a killed run has made it: the parts' order stays the same."""
    if out.has(name):
        out.keep(name)
        return
    with out.write(name) as final:
        shutil.copyfile(path, final)


def _counts(out: Out) -> Counts:
    found = Checkpoint.open(out.folder)
    with torch.device("meta"):
        from dataforge.model import Decoder, ModelConfig

        model = Decoder(ModelConfig(**found.model_config()))
    told: dict[str, Any] = {
        "steps": found.step,
        "tokens_trained": found.state["tokens"],
        "parameters": model.num_parameters(),
        "active_parameters": model.num_parameters(active=True),
    }
    if found.state["held_out"] is not None:
        told["held_out_bits_per_byte"] = found.state["held_out"]["bits_per_byte"]
    return Counts(extra=told)
