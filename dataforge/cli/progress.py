"""How far a stage is: a bar on a terminal, plain lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from dataforge.stage import Progress


def progress() -> Progress:
    """A bar where stderr is a terminal, else lines."""
    return Bar() if sys.stderr.isatty() else Lines()


def sized(size_bytes: float) -> str:
    """Bytes for people.

    >>> sized(512), sized(40_000_000)
    ('512 B', '38.1 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size_bytes < 1024 or unit == "TiB":
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError


class Lines:
    """A line when a stage has something to do, at most one every ten seconds while it does, and one at its end."""

    def __init__(self) -> None:
        self._began = self._said = 0.0
        self._total = self._done = self._documents = self._bytes = 0

    def begin(self, ref: str, total: int, already: int) -> None:
        self._began = self._said = time.monotonic()
        self._total, self._done, self._documents, self._bytes = total, already, 0, 0
        self._ref = ref
        if total > already:
            self._print(f"{ref}: {already:,} of {total:,} parts are there, {total - already:,} to make")

    def part(self, record: dict[str, Any]) -> None:
        taken = record.get("counts", {}).get("in", {})
        self._done += 1
        self._documents += taken.get("documents", 0)
        self._bytes += taken.get("bytes", 0)
        now = time.monotonic()
        if now - self._said > 10:
            self._said = now
            seconds = now - self._began
            made = self._done / max(1, self._total)
            left = seconds / max(1, self._done) * (self._total - self._done)
            rate = f"{self._documents / seconds:,.0f} documents/s, {sized(self._bytes / seconds)}/s"
            self._print(
                f"{self._ref}: {self._done:,} of {self._total:,} parts ({made:.0%}), {rate}, {left:,.0f} s left"
            )

    def end(self, ref: str, told: dict[str, Any]) -> None:
        if told.get("whole"):
            self._print(f"{ref}: was there already")
        else:
            self._print(
                f"{ref}: {told['made']:,} made, {told['found'] + told['reused']:,} found, {told['seconds']:.1f} s"
            )

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Bar:
    """A bar with rate and time left."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, ref: str, total: int, already: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._documents, self._bytes, self._began = 0, 0, time.monotonic()
        self._bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(ref, total=max(total, 1), completed=already, rate="")
        if total > already:
            self._bar.start()

    def part(self, record: dict[str, Any]) -> None:
        taken = record.get("counts", {}).get("in", {})
        self._documents += taken.get("documents", 0)
        self._bytes += taken.get("bytes", 0)
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = f"{self._documents / seconds:,.0f} documents/s {sized(self._bytes / seconds)}/s"
        self._bar.update(self._task, advance=1, rate=rate)

    def end(self, ref: str, told: dict[str, Any]) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        Lines().end(ref, told)
