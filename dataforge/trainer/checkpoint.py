"""Checkpoints on disk: all of a run's state, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from dataforge.errors import ChecksumMismatch, FormatError, TrainingError

FORMAT = 1
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
MODEL_CONFIG = "model.json"
STATE = "state.json"

_STEP = re.compile(r"step-(\d{8,})\Z")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: the folder of one, or a `checkpoints` artifact's."""

    folder: Path
    state: Mapping[str, Any]
    """`step`, `tokens`, the loader's state, the config, and the digests of the files."""

    @classmethod
    def open(cls, folder: Path | str) -> Checkpoint:
        """Read the state of a checkpoint. Raises FormatError if there is none, or a later one."""
        folder = Path(folder)
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FormatError(
                f"there is no checkpoint here: {error}", where=str(folder), hint="give a folder that `train` made"
            ) from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise FormatError(
                f"the checkpoint has another format than {FORMAT}", where=str(folder), hint="use a newer dataforge-lm"
            )
        return cls(folder, state)

    @property
    def step(self) -> int:
        return self.state["step"]

    def model_config(self) -> dict[str, Any]:
        """The fields of the model's ModelConfig."""
        return json.loads((self.folder / MODEL_CONFIG).read_text(encoding="utf-8"))

    def weights(self) -> dict[str, Tensor]:
        """The model's state. Raises ChecksumMismatch if the file is not what was written."""
        return self._tensors(WEIGHTS)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's state. Raises ChecksumMismatch if the file is not what was written."""
        return self._tensors(OPTIMIZER)

    def _tensors(self, name: str) -> dict[str, Tensor]:
        path = self.folder / name
        told = self.state["files"][name]
        found = sha256_of(path) if path.is_file() else "missing"
        if found != told:
            raise ChecksumMismatch(
                f"{name} has sha256 {found[:8]}..., the checkpoint says {told[:8]}...",
                where=str(self.folder),
                hint="remove this checkpoint: the run goes on from the one before it",
            )
        return load_file(path)


class CheckpointStore:
    """The checkpoints of one run, `step-00000050` and so on.

    A checkpoint is written under a temporary name, made durable file by file, and renamed: whatever is called
    `step-...` is whole, at any instant. Older ones than the last `keep_last` then go, again by renaming first.
    """

    def __init__(self, folder: Path | str, keep_last: int) -> None:
        self.folder = Path(folder)
        self.keep_last = keep_last

    def steps(self) -> list[int]:
        """Steps that have a whole checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        found = (_STEP.match(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def last(self) -> Checkpoint | None:
        """The latest checkpoint, if there is one."""
        steps = self.steps()
        return Checkpoint.open(self.path(steps[-1])) if steps else None

    def save(
        self,
        *,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        model_config: Mapping[str, Any],
        state: Mapping[str, Any],
    ) -> Checkpoint:
        """Write the checkpoint of step `state["step"]`; when this returns it survives a power cut.

        Should that step have one already (a run of the same config made it), that one stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.path(state["step"])
        if final.is_dir():
            return Checkpoint.open(final)
        beside = self.folder / f".writing-{final.name}-{secrets.token_hex(4)}"
        beside.mkdir()
        save_file(_plain(weights), beside / WEIGHTS)
        save_file(_plain(optimizer), beside / OPTIMIZER)
        _write_json(beside / MODEL_CONFIG, model_config)
        digests = {name: sha256_of(beside / name) for name in (WEIGHTS, OPTIMIZER, MODEL_CONFIG)}
        _write_json(beside / STATE, {"format": FORMAT, **state, "files": digests})
        for path in (*beside.iterdir(), beside):
            _sync(path)
        beside.rename(final)
        _sync(self.folder)
        self._forget_old()
        return Checkpoint.open(final)

    def sweep(self) -> None:
        """Remove what a killed run left half written. Only one run may use the folder at a time."""
        for path in self.folder.glob(".*-step-*") if self.folder.is_dir() else ():
            shutil.rmtree(path, ignore_errors=True)

    def _forget_old(self) -> None:
        for step in self.steps()[: -self.keep_last]:
            leaving = self.folder / f".removing-{self.path(step).name}-{secrets.token_hex(4)}"
            self.path(step).rename(leaving)
            shutil.rmtree(leaving)


def refuse_other_config(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """Raise TrainingError, naming the first setting that differs, unless the checkpoint is of a run of `config`."""
    there = checkpoint.state["config"]
    for name in sorted({*there, *config}):
        if there.get(name) != config.get(name):
            raise TrainingError(
                f"the checkpoint of step {checkpoint.step:,} was made with {name} = {there.get(name)!r}, "
                f"this run has {config.get(name)!r}",
                where=str(checkpoint.folder),
                hint="train into another folder, or with the same settings",
            )


def sha256_of(path: Path) -> str:
    """SHA-256 (64 hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
