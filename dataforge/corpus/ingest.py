"""Step 1: raw files become numbered documents. The worked example of a stage: split, open_worker, run_part, finish."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataforge.corpus.document import SCHEMA
from dataforge.corpus.duplicate_ids import refuse_duplicate_ids
from dataforge.corpus.raw_files import find_raw_files
from dataforge.corpus.readers import RawRow, format_of, rows_of
from dataforge.errors import ConfigError, NothingToDo, TooManyBadRows
from dataforge.make import make
from dataforge.stage import Inputs, Out, Part, PartOut, RawFile, Run, part_key
from dataforge.workspace import Artifact, Counts, Workspace

_FIELDS = ("id", "text", "source", "lang", "license")
_TEXT_FILES_PER_PART = 4096
_TEXT_BYTES_PER_PART = 64 << 20
_FLUSH_BYTES = 4 << 20
_FLUSH_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How raw rows become documents. Every field is part of the id."""

    fields: Mapping[str, str] = field(default_factory=dict)
    """Document column -> field of the raw row, where they differ: {"text": "content"}."""
    source: str | None = None
    """`source` of rows that have none."""
    format: str | None = None
    """`jsonl`, `parquet` or `text` for files whose ending does not say."""
    max_bad_share: float = 0.01
    """Share of unreadable rows above which the stage stops. Empty documents are dropped and counted, not bad."""
    holdout: float = 0.0
    """Share of documents to hold out, by keyed hash of the id."""
    holdout_key: str = "dataforge"
    """Key of that hash: the same document is held out in every corpus that uses the key."""

    def __post_init__(self) -> None:
        for name, low, high in (("max_bad_share", 0, 1), ("holdout", 0, 0.5)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be between {low} and {high}, got {getattr(self, name)}")
        for name in self.fields:
            if name not in _FIELDS:
                raise ConfigError(f"documents have no column {name!r}", hint=f"map one of {', '.join(_FIELDS)}")
        if self.format not in (None, "jsonl", "parquet", "text"):
            raise ConfigError(f"no reader is called {self.format!r}", hint="use jsonl, parquet or text")


@dataclass(frozen=True)
class Ingest:
    """The stage: one part for each JSONL or Parquet file, text files grouped."""

    config: IngestConfig
    kind = "documents"
    step = "ingest"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        first, kept = 0, []
        if "parent" in inputs:
            parent: Artifact = inputs["parent"]
            kept = [Part(told["path"], told["key"], found_in=parent.path) for told in parent.parts(".parquet")]
            first = len(kept)
        groups = enumerate(_groups(inputs["files"], self.config.format), first)
        return [*kept, *(self._part(index, group) for index, group in groups)]

    def _part(self, index: int, group: list[RawFile]) -> Part:
        made_of = [file.identity() for file in group]
        return Part(f"part-{index:05d}.parquet", part_key(self, made_of), {"files": group})

    def open_worker(self, inputs: Inputs) -> None:
        return None

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        counts = Counts(
            taken={"documents": 0, "bytes": 0}, made={"documents": 0, "bytes": 0}, extra={"bad_rows": 0, "held_out": 0}
        )
        with pq.ParquetWriter(out.path, SCHEMA, compression="zstd", compression_level=3) as writer:
            for batch in _batches(self._documents(part.payload["files"], out, counts)):
                writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
        return counts

    def _documents(self, group: Sequence[RawFile], out: PartOut, counts: Counts) -> Iterator[dict[str, Any]]:
        for file in group:
            kind = self.config.format or format_of(file.path) or ""
            for row in rows_of(file.at, file.path, kind):
                document, reason = self._document(row, file.path, kind)
                size = row.size_bytes if document is None else len(document["text"].encode())
                counts.taken["documents"] += 1
                counts.taken["bytes"] += size
                if document is None:
                    counts.drop(reason, documents=1, bytes=size)
                    counts.extra["bad_rows"] += reason != "empty"
                    out.drop(reason, size_bytes=size, file=file.path, position=row.position)
                    continue
                counts.made["documents"] += 1
                counts.made["bytes"] += size
                counts.extra["held_out"] += document["held_out"]
                yield document

    def _document(self, row: RawRow, path: str, kind: str) -> tuple[dict[str, Any] | None, str]:
        """A document, or None and the reason why the row is none."""
        if row.values is None:
            return None, row.bad or "unreadable"
        values = dict(row.values)
        taken = {name: values.pop(self.config.fields.get(name, name), None) for name in _FIELDS}
        text = taken["text"]
        if text is None:
            return None, "missing-text"
        if not isinstance(text, str):
            return None, "text-is-not-a-string"
        if not text:
            return None, "empty"
        if not _encodable(text):
            return None, "invalid-unicode"
        taken = {name: _string(value) for name, value in taken.items()}
        if taken["id"] is None:
            taken["id"] = path if kind == "text" else _made_id(path, row, text)
        meta = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str) if values else None
        if not all(value is None or _encodable(value) for value in (*taken.values(), meta)):
            return None, "invalid-unicode"
        return {
            **taken,
            "source": taken["source"] or self.config.source,
            "meta": meta,
            "held_out": is_held_out(str(taken["id"]), self.config.holdout, self.config.holdout_key),
            "file": path,
            "position": row.position,
        }, ""

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        total = sum((Counts.from_json(part["counts"]) for part in parts), Counts())
        rows, bad = total.taken.get("documents", 0), total.extra.get("bad_rows", 0)
        if bad > self.config.max_bad_share * rows:
            raise TooManyBadRows(
                f"{bad:,} of {rows:,} rows are unreadable; {self.config.max_bad_share:.2%} may be",
                where=_first_bad(out.folder, parts),
                hint="mend the files, map the fields with `--field text=NAME`, or raise `max_bad_share`",
            )
        if not total.made.get("documents"):
            raise NothingToDo(
                f"no document was found in {len(inputs['files']):,} files",
                where=", ".join(file.path for file in inputs["files"][:3]),
                hint="check that the files are not empty and that `--field text=NAME` names the text",
            )
        refuse_duplicate_ids([out.folder / part["path"] for part in parts])
        return Counts()


def ingest(
    workspace: Workspace,
    paths: Sequence[Path | str],
    *,
    name: str,
    config: IngestConfig | None = None,
    run: Run | None = None,
) -> Artifact:
    """Documents made from raw files and folders.

    Args:
        workspace: where the artifact goes.
        paths: files, or folders that are searched for files with a known ending.
        name: the artifact's name.
        config: field mapping, held-out share, how many bad rows are borne.
        run: where to run.
    Raises:
        InputError: a file is missing or its container is broken.
        TooManyBadRows: more unreadable rows than `max_bad_share`.
        DuplicateId: two rows carry one id; both places are named.
        NothingToDo: no documents at all.
    """
    config = config or IngestConfig()
    files = find_raw_files(workspace, paths, config.format)
    return make(workspace, Ingest(config), {"files": files}, name=name, run=run)


def append(
    workspace: Workspace,
    parent: Artifact,
    paths: Sequence[Path | str],
    *,
    name: str | None = None,
    run: Run | None = None,
) -> Artifact:
    """Documents with the parent's parts first and the new files' after them: old numbers stay.

    Files that the parent already holds (path, size and SHA-256 equal) are not taken again; if all are, the parent
    itself comes back. The parent's config applies.
    """
    if "documents" in parent.manifest.inputs:
        raise ConfigError(
            "a filtered documents artifact cannot be appended to",
            where=parent.ref,
            hint="append to the ingested documents it came from, then filter again: unchanged parts are found",
        )
    config = IngestConfig(**parent.config)
    known, ancestor = set(), parent
    while True:
        known |= {json.dumps(told, sort_keys=True) for told in ancestor.manifest.inputs["files"]}
        if "parent" not in ancestor.manifest.inputs:
            break
        ancestor = ancestor.input("parent")
    found = find_raw_files(workspace, paths, config.format)
    fresh = [file for file in found if json.dumps(file.identity(), sort_keys=True) not in known]
    if not fresh:
        return parent
    return make(workspace, Ingest(config), {"parent": parent, "files": fresh}, name=name or parent.name, run=run)


def is_held_out(document_id: str, share: float, key: str) -> bool:
    """Whether a document is held out: its keyed hash, as a fraction of 2^64, is below `share`."""
    if share <= 0:
        return False
    digest = hashlib.blake2b(document_id.encode(), key=key.encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def _groups(files: Sequence[RawFile], kind: str | None) -> Iterator[list[RawFile]]:
    """One group a part: each JSONL or Parquet file alone, text files together up to a size."""
    group: list[RawFile] = []
    for file in files:
        if (kind or format_of(file.path)) != "text":
            if group:
                yield group
            group = []
            yield [file]
            continue
        size = sum(f.size_bytes for f in group)
        if group and (len(group) == _TEXT_FILES_PER_PART or size + file.size_bytes > _TEXT_BYTES_PER_PART):
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _batches(documents: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Row groups of bounded size."""
    batch: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document["text"])
        if size >= _FLUSH_BYTES or len(batch) >= _FLUSH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _made_id(path: str, row: RawRow, text: str) -> str:
    """An id for a row without one, from its place and content."""
    digest = hashlib.blake2b(digest_size=12)
    for item in (path.encode(), str(row.position).encode(), text.encode()):
        digest.update(len(item).to_bytes(8, "little") + item)
    return digest.hexdigest()


def _string(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _encodable(text: str) -> bool:
    """Whether the text has no lone surrogates (JSON escapes can make them; UTF-8 cannot hold them)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _first_bad(folder: Path, parts: Sequence[dict[str, Any]]) -> str:
    """The first places in the ledgers, for the error."""
    told: list[str] = []
    for part in parts:
        for attached in part.get("attachments", []):
            rows = pq.read_table(folder / attached["path"]).to_pylist()
            told += [f"{row['file']}:{row['position']} ({row['rule']})" for row in rows if row["rule"] != "empty"]
            if len(told) >= 3:
                return ", ".join(told[:3])
    return ", ".join(told)
