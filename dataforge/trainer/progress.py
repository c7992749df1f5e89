"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

_SECONDS_BETWEEN_LINES = 10.0


class StepProgress(Protocol):
    """Told of every step of a run."""

    def begin(self, num_steps: int, done: int) -> None:
        """The run has `num_steps` in all and goes on after `done`."""

    def step(self, row: Mapping[str, Any]) -> None:
        """One step is over; `row` is its line in the metrics."""

    def end(self) -> None:
        """The run is over, or stopped by an error."""


class NoProgress:
    """Says nothing."""

    def begin(self, num_steps: int, done: int) -> None:
        pass

    def step(self, row: Mapping[str, Any]) -> None:
        pass

    def end(self) -> None:
        pass


class PlainLines:
    """A line for the first step, one every ten seconds, and one for the last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._num_steps = 0
        self._next = 0.0

    def begin(self, num_steps: int, done: int) -> None:
        self._num_steps = num_steps
        self._next = time.monotonic()
        if done:
            print(f"train: going on after step {done:,} of {num_steps:,}", file=self._stream)

    def step(self, row: Mapping[str, Any]) -> None:
        if row["step"] == self._num_steps or time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            print(f"train: step {row['step']:,} of {self._num_steps:,}  {figures(row)}", file=self._stream)

    def end(self) -> None:
        self._stream.flush()


class RichBar:
    """A bar with loss, rate and time left."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = ("train", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[told]}"))
        self._bar = Progress(*columns, console=Console(file=stream))
        self._task = self._bar.add_task("train", told="")

    def begin(self, num_steps: int, done: int) -> None:
        self._bar.update(self._task, total=num_steps, completed=done)
        self._bar.start()

    def step(self, row: Mapping[str, Any]) -> None:
        self._bar.update(self._task, completed=row["step"], told=figures(row))

    def end(self) -> None:
        self._bar.stop()


def figures(row: Mapping[str, Any]) -> str:
    """The figures of a step in one line.

    >>> figures({"loss": 6.54321, "tokens_per_s": 8192.4, "held_out": {"bits_per_byte": 2.5}})
    'loss 6.543  held-out 2.500 bits/byte  8,192 tokens/s'
    """
    held_out = f"held-out {row['held_out']['bits_per_byte']:.3f} bits/byte  " if "held_out" in row else ""
    return f"loss {row['loss']:.3f}  {held_out}{row['tokens_per_s']:,.0f} tokens/s"


def progress_on(stream: TextIO = sys.stderr) -> StepProgress:
    """A bar if the stream is a terminal and rich is installed, else plain lines."""
    if stream.isatty():
        try:
            return RichBar(stream)
        except ImportError:
            pass
    return PlainLines(stream)
