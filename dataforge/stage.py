"""What a step is: four plain methods over parts, and the places they write to.

A stage says *what*; a runner (this process, a pool of processes, Ray) only decides *where* `run_part` happens;
`dataforge.make` puts the artifact together.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from dataforge.workspace import parts as files
from dataforge.workspace.content import content_of_file, digest_of
from dataforge.workspace.manifest import Counts, plain
from dataforge.workspace.publishing import ContentOf, publish_part

LEDGER = pa.schema(
    [
        ("id", pa.string()),
        ("number", pa.int64()),
        ("stage", pa.string()),
        ("rule", pa.string()),
        ("score", pa.float64()),
        ("kept", pa.string()),
        ("bytes", pa.int64()),
        ("file", pa.string()),
        ("position", pa.int64()),
    ]
)
"""Columns of a drop ledger: who was dropped, by which stage and rule, and the id of the kept twin of a duplicate."""


@dataclass(frozen=True)
class Part:
    """One file that a stage has to write."""

    name: str
    """Its file name, `part-00000.parquet`: the same whatever the number of workers. The stem ends at the first dot."""
    key: str
    """Digest of what it is made of (see `part_key`): a finished part with this key is found, not made again."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """What `run_part` needs to know, picklable. Where files lie may be here; it is not part of the key."""
    found_in: Path | None = None
    """A folder where this very part, same stem, is known to be whole: it is linked, never made again."""

    @property
    def stem(self) -> str:
        return self.name.split(".")[0]


class PartOut:
    """Where `run_part` writes: `path` is the part's file; dropped documents and further files go beside it."""

    def __init__(self, folder: Path, part: Part, stage: str) -> None:
        self.path = files.temporary(folder / part.name)
        self._folder, self._part, self._stage = folder, part, stage
        self._dropped: list[dict[str, Any]] = []
        self._attached: list[tuple[Path, str]] = []

    def drop(
        self,
        rule: str,
        *,
        id: str | None = None,
        number: int | None = None,
        score: float | None = None,
        kept: str | None = None,
        size_bytes: int = 0,
        file: str | None = None,
        position: int | None = None,
    ) -> None:
        """List one dropped document in the part's ledger."""
        self._dropped.append(
            {"id": id, "number": number, "stage": self._stage, "rule": rule, "score": score, "kept": kept,
             "bytes": size_bytes, "file": file, "position": position}
        )  # fmt: skip

    def attach(self, suffix: str) -> Path:
        """A path for a further file of this part, `part-00000.<suffix>`; it appears together with the part."""
        path = files.temporary(self._folder / f"{self._part.stem}.{suffix}")
        self._attached.append((path, f"{self._part.stem}.{suffix}"))
        return path

    def close(self) -> list[tuple[Path, str]]:
        """Write the ledger; the (temporary path, final name) of every attached file."""
        if self._dropped:
            path = self.attach("dropped.parquet")
            pq.write_table(pa.Table.from_pylist(self._dropped, schema=LEDGER), path, compression="zstd")
        return self._attached

    def discard(self) -> None:
        """Remove what was written, after an error."""
        for path in (self.path, *(path for path, _ in self._attached)):
            path.unlink(missing_ok=True)


class Out:
    """Where `finish` writes further parts. Each appears whole; after a kill, `has` says which are there."""

    def __init__(self, folder: Path, content: ContentOf = content_of_file) -> None:
        self.folder = folder
        self.scratch = folder / ".scratch"
        """A folder for work in progress that a later run goes on with (checkpoints), made by the stage; gone when the
        manifest is written. Two runs at once share it: the stage has to guard it."""
        self._content = content
        self.records: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def private_folder(self) -> Iterator[Path]:
        """A folder of this process alone for temporary files, removed at the end of the block."""
        path = files.temporary(self.folder / "work")
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def has(self, name: str) -> bool:
        """Whether a further part of that name is whole (by this run or an earlier one)."""
        return any(r["path"] == name for r in self.records) or (self.folder / f"{name}.json").is_file()

    @contextlib.contextmanager
    def write(self, name: str, *, rows: int = 0) -> Iterator[Path]:
        """A temporary path to write to; the file appears as `name` when the block ends without an error."""
        path = files.temporary(self.folder / name)
        try:
            yield path
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.records.append(publish_part(self.folder, path, name, {"rows": rows}, [], self._content, f"{name}.json"))

    def keep(self, name: str) -> None:
        """Count a part that an earlier run finished (`has` said so) among this artifact's parts."""
        if not any(r["path"] == name for r in self.records):
            self.records.append(files.read_json(self.folder / f"{name}.json"))


Inputs = Mapping[str, Any]
"""Role -> Artifact, or for raw files role -> list of RawFile."""


@dataclass(frozen=True)
class RawFile:
    """A file of the user's. Relative path, size and SHA-256 are its identity, not where it lies."""

    path: str
    size_bytes: int
    sha256: str
    at: Path

    def identity(self) -> dict[str, Any]:
        return {"path": self.path, "size_bytes": self.size_bytes, "sha256": self.sha256}


class Stage(Protocol):
    """Four plain methods. Instances are pickled to workers, so they hold plain data and a frozen `config`.

    Optional attributes: `step`, the command's name as ledgers give it; `environment() -> dict` for stages whose bytes
    depend on device class, library versions and thread counts (it is recorded with each part, and parts of two
    environments are not mixed; from its `device`, "cuda" or another, and `threads` a runner knows what a part takes).
    """

    kind: str
    version: int

    @property
    def config(self) -> Any: ...

    def split(self, inputs: Inputs) -> list[Part]:
        """The parts to make, in order; the same names whatever the number of workers."""

    def open_worker(self, inputs: Inputs) -> Any:
        """What a process needs to run parts: models loaded, threads fixed. Once a process."""

    def run_part(self, worker: Any, part: Part, out: PartOut) -> Counts:
        """Write the one file `out.path`. Pure: the same bytes for the same part."""

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        """Write what needs all parts, in bounded memory. Returns what to add to the counts."""


def part_key(stage: Stage, *made_of: Any) -> str:
    """The key of a part: digest of (kind, stage version, config, what the part is made of)."""
    return digest_of([stage.kind, stage.version, plain(stage.config), list(made_of)])


class Runner(Protocol):
    """Decides where parts are made. `done` is called in this process for each finished part."""

    def run(
        self,
        stage: Stage,
        inputs: Inputs,
        folder: Path,
        missing: Sequence[Part],
        done: Callable[[dict[str, Any]], None],
    ) -> None: ...


class Progress(Protocol):
    """Told how far a stage is. The command line draws a bar from it; the default says nothing."""

    def begin(self, ref: str, total: int, already: int) -> None: ...

    def part(self, record: dict[str, Any]) -> None: ...

    def end(self, ref: str, told: dict[str, Any]) -> None: ...


class Silent:
    """No progress."""

    def begin(self, ref: str, total: int, already: int) -> None:
        pass

    def part(self, record: dict[str, Any]) -> None:
        pass

    def end(self, ref: str, told: dict[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class Run:
    """Where and how to run. Nothing here changes an id."""

    runner: Runner | None = None
    """Where parts are made; None is this process."""
    progress: Progress = field(default_factory=Silent)
    dry_run: bool = False
    """Say what would be made; make nothing. Steps then return a Forecast."""
    allow_mixed: bool = False
    """Go on with parts that another device class, library version or thread count made; recorded in run.json."""
    remake: tuple[str, ...] = ()
    """Names of parts to write again (after damage): the same content must come out."""


@dataclass(frozen=True)
class Forecast:
    """What a step would make, from counts of its inputs and rates seen in this workspace."""

    kind: str
    name: str
    id: str | None
    """None where an input is itself only forecast."""
    parts: int = 0
    parts_found: int = 0
    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    disk_bytes: int = 0
    seconds: float | None = None
    """From the rate of an earlier artifact of this kind; None where there was none."""

    @property
    def ref(self) -> str:
        return f"{self.kind}/{self.name}" + (f"@{self.id}" if self.id else "")
