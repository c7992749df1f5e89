"""The training loop: rows in, checkpoints and metrics out, and the same again after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dataforge.errors import ConfigError, MixedEnvironment, PastTheEnd, StreamError, TrainingError
from dataforge.model import Decoder, DocumentLayout, layout_of_segments
from dataforge.moe import MoELayer, StepContext
from dataforge.trainer.checkpoint import Checkpoint, CheckpointStore, refuse_other_config
from dataforge.trainer.config import FitConfig, TrainConfig
from dataforge.trainer.evaluate import Evaluation, HeldOut, evaluate
from dataforge.trainer.folder_lock import folder_lock
from dataforge.trainer.metrics import METRICS, MetricsLog, merge_router_metrics
from dataforge.trainer.optimizer import Optimizer
from dataforge.trainer.progress import NoProgress, StepProgress
from dataforge.trainer.schedule import learning_rate

# B rows  L positions

CHECKPOINTS = "checkpoints"


class Batch(Protocol):
    """One step's rows."""

    @property
    def token_ids(self) -> Any:
        """Integers [B, L + 1]: a row's inputs are all but its last, its labels all but its first."""

    @property
    def segments(self) -> Any:
        """int64 [n, 4]: row, document, offset, length; in row order, the lengths of a row summing to L + 1."""


class RowLoader(Protocol):
    """What the loop reads from; `dataforge.streams.Loader` is one."""

    @property
    def row_length(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    def __len__(self) -> int:
        """Steps still to come."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON: where it stands after the batches handed out so far."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class FitResult:
    """What a finished run leaves."""

    model: Decoder
    checkpoint: Checkpoint
    """Of the last step."""
    evaluation: Evaluation | None
    """On the held-out documents, after the last step; None if there were none."""
    metrics: Path
    """JSON lines, one a step."""


def fit(
    config: FitConfig,
    *,
    loader: RowLoader | None = None,
    held_out: HeldOut | None = None,
    progress: StepProgress | None = None,
) -> FitResult:
    """Train a model on rows, from its last checkpoint in `config.folder` if there is one.

    A run killed at any moment goes on to the same losses as an undisturbed one: bit for bit on a CPU with the same
    library versions and number of threads. Nothing depends on the state of a random generator: initial weights follow
    from the seed, and routers draw by (seed, step, pass, layer, rank).

    Args:
        config: what to train, and where.
        loader: the rows; None opens `config.source`. It stands where the run begins.
        held_out: documents to evaluate on; None does not evaluate.
        progress: told of every step; None says nothing.
    Raises:
        ConfigError: a setting is wrong; nothing has been allocated yet.
        PastTheEnd: there are fewer rows than `steps` need; nothing has been allocated yet.
        TrainingError: the loss is not a number (the rows and documents are named), or the folder holds another run.
        MixedEnvironment: the folder's checkpoint is of another device class, library version or thread count.
    """
    device = pick_device(config.device)
    with _threads(config.num_threads), _opened(config, loader) as stream, folder_lock(Path(config.folder)):
        run = _Run(config, stream, held_out, device, progress or NoProgress())
        try:
            return run.go()
        finally:
            run.close()


class _Run:
    """A run's state between steps."""

    def __init__(
        self,
        config: FitConfig,
        loader: RowLoader,
        held_out: HeldOut | None,
        device: torch.device,
        progress: StepProgress,
    ) -> None:
        train = config.train
        self.config, self.train, self.loader, self.device, self.progress = config, train, loader, device, progress
        self.num_steps = _num_steps(train, loader)
        vocab_size = loader.vocab_size if config.vocab_size is None else config.vocab_size
        model_config = train.model_config(vocab_size)
        self.plain_config = _plain(train)
        self.environments = [environment(device)]
        self.held_out = None if held_out is None else held_out.thinned(train.eval_documents)
        self.autocast = autocast_dtype(train, device)
        self.store = CheckpointStore(Path(config.folder) / CHECKPOINTS, config.keep_last)
        self.store.sweep()
        self.checkpoint = self.store.last()
        if self.checkpoint is not None:
            self._refuse_mixing(self.checkpoint)
        # Everything that can be wrong with the settings has been said; now memory is taken.
        self.model = Decoder(model_config, seed=train.seed).to(device)
        self.optimizer = Optimizer(self.model, train)
        self.step, self.tokens = 0, 0
        self.evaluation: Evaluation | None = None
        if self.checkpoint is not None:
            self._resume(self.checkpoint)
        self.log = MetricsLog(Path(config.folder) / METRICS, after_step=self.step)

    def go(self) -> FitResult:
        self.progress.begin(self.num_steps, self.step)
        batches = iter(self.loader)
        while self.step < self.num_steps:
            batch = next(batches, None)
            if batch is None:
                raise StreamError(
                    f"the rows ended after step {self.step:,} of {self.num_steps:,}",
                    hint="the loader promised more; open the rows again",
                )
            self.step += 1
            row = self._train_step(batch)
            if self._due(self.train.eval_every) and self.held_out is not None:
                self.evaluation = self._evaluate(self.held_out)
                row["held_out"] = _told(self.evaluation)
            self.log.write(row)
            self.progress.step(row)
            if self._due(self.config.checkpoint_every):
                self._save()
        assert self.checkpoint is not None
        return FitResult(self.model, self.checkpoint, self.evaluation, self.log.path)

    def close(self) -> None:
        self.progress.end()
        self.log.close()

    def _due(self, every: int) -> bool:
        return self.step == self.num_steps or (every > 0 and self.step % every == 0)

    def _train_step(self, batch: Batch) -> dict[str, Any]:
        began = time.perf_counter()
        self.model.train()
        token_ids = torch.from_numpy(np.array(batch.token_ids, dtype=np.int64)).to(self.device)
        num_rows, length = token_ids.shape[0], token_ids.shape[1] - 1
        layout = layout_of_segments(batch.segments, num_rows, length).to(self.device)
        size = self.train.micro_batch or self.train.global_batch
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        extra: dict[str, Tensor] = {}
        passes, shares = [], []
        for number, start in enumerate(range(0, num_rows, size)):
            end = min(start + size, num_rows)
            nll, losses, metrics = self._pass(token_ids[start:end], layout.rows(start, end), number)
            share = (end - start) / num_rows
            loss = nll / (num_rows * length)
            for name, value in losses.items():
                loss = loss + share * value
                extra[name] = extra.get(name, torch.zeros_like(total)) + share * value.detach()
            loss.backward()
            total += nll.detach() / (num_rows * length)
            passes.append(metrics)
            shares.append(share)
        norm = self.optimizer.clip()
        self._refuse_nan(batch, total.item(), norm.item())
        lr = self._learning_rate()
        self.optimizer.step(lr)
        ended = [m.router.on_step_end() for m in self.model.modules() if isinstance(m, MoELayer)]
        router = merge_router_metrics(passes, shares)
        if any(ended):
            router["step_end"] = [{name: value.tolist() for name, value in told.items()} for told in ended]
        self.tokens += num_rows * length
        seconds = time.perf_counter() - began
        return {
            "step": self.step,
            "rows": num_rows,
            "tokens": self.tokens,
            "loss": total.item(),
            "aux_losses": {name: value.item() for name, value in extra.items()},
            "lr": lr,
            "grad_norm": norm.item(),
            **router,
            "seconds": round(seconds, 4),
            "tokens_per_s": round(num_rows * length / seconds, 1),
        }

    def _pass(
        self, token_ids: Tensor, layout: DocumentLayout, number: int
    ) -> tuple[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]]:
        context = StepContext(seed=self.train.seed, step=self.step, microbatch=number)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            nll, passed = self.model.loss(token_ids[:, :-1], token_ids[:, 1:], layout, context=context)
        return nll, passed.losses, passed.metrics

    def _learning_rate(self) -> float:
        return learning_rate(
            self.step,
            peak=self.train.lr,
            num_steps=self.num_steps,
            warmup_steps=self.train.warmup_steps,
            final_ratio=self.train.final_lr_ratio,
        )

    def _refuse_nan(self, batch: Batch, loss: float, norm: float) -> None:
        """Stop before the weights are touched, and say which rows did it."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        segments = np.asarray(batch.segments).reshape(-1, 4)
        rows, documents = np.unique(segments[:, 0]), np.unique(segments[:, 1])
        named = ", ".join(map(str, documents[:16]))
        if len(documents) > 16:
            named += f" and {len(documents) - 16:,} more"
        raise TrainingError(
            f"step {self.step:,}: the loss is {loss}, the gradient norm {norm}",
            where=f"rows {rows[0]:,} to {rows[-1]:,}; documents {named}",
            hint=f"the weights are those of step {self.step - 1:,}; lower `lr`, or look at these documents",
        )

    def _evaluate(self, held_out: HeldOut) -> Evaluation:
        rows = self.train.micro_batch or self.train.global_batch
        return evaluate(
            self.model, held_out, row_length=self.loader.row_length, rows_at_once=rows, autocast=self.autocast
        )

    def _save(self) -> None:
        self.log.sync()
        state = {
            "step": self.step,
            "num_steps": self.num_steps,
            "tokens": self.tokens,
            "config": self.plain_config,
            "loader": self.loader.state_dict(),
            "environments": self.environments,
            "held_out": None if self.evaluation is None else _told(self.evaluation),
        }
        self.checkpoint = self.store.save(
            weights=self.model.state_dict(),
            optimizer=self.optimizer.tensors(),
            model_config=_plain(self.model.config),
            state=state,
        )

    def _refuse_mixing(self, checkpoint: Checkpoint) -> None:
        refuse_other_config(checkpoint, self.plain_config)
        there, here = checkpoint.state["environments"], self.environments[0]
        if there[-1] != here and not self.config.allow_mixed:
            raise MixedEnvironment(
                f"the checkpoint of step {checkpoint.step:,} was made with {there[-1]}, this process has {here}",
                where=str(checkpoint.folder),
                hint="go on where it was begun, or give --allow-mixed (it is recorded)",
            )
        self.environments = there if there[-1] == here else [*there, here]

    def _resume(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.weights())
        self.optimizer.load(checkpoint.optimizer())
        self.loader.load_state_dict(checkpoint.state["loader"])
        self.step, self.tokens = checkpoint.step, checkpoint.state["tokens"]
        told = checkpoint.state["held_out"]
        if told is not None:
            self.evaluation = Evaluation(told["bits"], told["bytes"], told["tokens"], told["documents"])


def environment(device: torch.device, num_threads: int | None = None) -> dict[str, Any]:
    """What the last bits of a run depend on, besides its config."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "torch": torch.__version__, "threads": num_threads or torch.get_num_threads()}


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The dtype that products run in; None is the weights' own float32."""
    if config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda"):
        return torch.bfloat16
    return None


def _told(evaluation: Evaluation) -> dict[str, Any]:
    return {"bits_per_byte": evaluation.bits_per_byte, **dataclasses.asdict(evaluation)}


def _plain(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU if there is one. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is no device", hint="use auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} was asked for, this machine has no CUDA device", hint="use auto or cpu")
    return device


def _num_steps(config: TrainConfig, loader: RowLoader) -> int:
    there = len(loader)
    if config.steps is not None and config.steps > there:
        raise PastTheEnd(
            f"{config.steps:,} steps of {config.global_batch:,} rows were asked for, the rows last for {there:,}",
            where="training",
            hint=f"lower `steps` to {there:,}, or plan more draws",
        )
    return config.steps or there


@contextlib.contextmanager
def _threads(num_threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _opened(config: FitConfig, loader: RowLoader | None) -> Iterator[RowLoader]:
    if loader is not None:
        yield loader
        return
    if config.source is None:
        raise ConfigError(
            "there are no rows to train on",
            where="training",
            hint="give `source`, a rows artifact's folder or URL, or hand over a loader",
        )
    from dataforge.streams import Loader

    train = config.train
    with Loader(config.source, global_batch=train.global_batch, steps=train.steps, api_key=config.api_key) as stream:
        yield stream
