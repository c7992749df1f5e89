"""What an artifact is made of, by what, from what. Written last: with its manifest an artifact is whole."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataforge.errors import FormatError, NotConserved
from dataforge.workspace.content import digest_of
from dataforge.workspace.parts import read_json

FORMAT = 1
ID_LENGTH = 12
UNITS = ("documents", "bytes", "tokens")


@dataclass
class Counts:
    """What came in, what went out, and what was dropped for which reason. Adding up is all it does.

    A unit (documents, bytes, tokens) that is counted both in and out must balance: `in = out + Σ dropped`.

    >>> a = Counts(taken={"documents": 3}, made={"documents": 2}, dropped={"empty": {"documents": 1}})
    >>> (a + a).taken, (a + a).dropped
    ({'documents': 6}, {'empty': {'documents': 2}})
    """

    taken: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    """Further whole numbers, added up by name (`blank_lines`), or values that only one part gives (`clusters`)."""

    def __add__(self, other: Counts) -> Counts:
        dropped = {reason: dict(units) for reason, units in self.dropped.items()}
        total = Counts(dict(self.taken), dict(self.made), dropped, dict(self.extra))
        _add(total.taken, other.taken)
        _add(total.made, other.made)
        for reason, units in other.dropped.items():
            _add(total.dropped.setdefault(reason, {}), units)
        for name, value in other.extra.items():
            same = name in total.extra and isinstance(value, int) and not isinstance(value, bool)
            total.extra[name] = total.extra[name] + value if same else value
        return total

    def drop(self, reason: str, **units: int) -> None:
        """Count something as dropped: `counts.drop("empty", documents=1, bytes=0)`."""
        _add(self.dropped.setdefault(reason, {}), units)

    def check(self, where: str) -> None:
        """Raise NotConserved unless every unit that is counted in and out balances."""
        for unit in UNITS:
            if unit in self.taken and unit in self.made:
                lost = sum(units.get(unit, 0) for units in self.dropped.values())
                if self.taken[unit] != self.made[unit] + lost:
                    raise NotConserved(
                        f"{self.taken[unit]:,} {unit} came in, {self.made[unit]:,} went out and {lost:,} were dropped",
                        where=where,
                        hint="this is a fault in dataforge; please report it with the manifest",
                    )

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self.taken:
            told["in"] = self.taken
        if self.made:
            told["out"] = self.made
        if self.dropped:
            told["dropped"] = self.dropped
        return {**told, **self.extra}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Counts:
        rest = {name: told for name, told in value.items() if name not in ("in", "out", "dropped")}
        return cls(value.get("in", {}), value.get("out", {}), value.get("dropped", {}), rest)


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + int(value)


@dataclass(frozen=True)
class Manifest:
    """The manifest of one artifact; `path.name` is `manifest.json`."""

    kind: str
    id: str
    stage_version: int
    config: dict[str, Any]
    inputs: dict[str, Any]
    counts: dict[str, Any]
    parts: list[dict[str, Any]]
    content: str
    format: int = FORMAT

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read and check a manifest. Raises FormatError if it is not one, or of a later format."""
        try:
            value = read_json(path)
            names = {f.name for f in dataclasses.fields(cls)}
            manifest = cls(**{name: told for name, told in value.items() if name in names})
        except (ValueError, TypeError, AttributeError) as error:
            raise FormatError(f"the manifest cannot be read: {error}", where=str(path)) from error
        if manifest.format > FORMAT:
            raise FormatError(
                f"the manifest has format {manifest.format}, this dataforge reads up to {FORMAT}",
                where=str(path),
                hint="install a newer dataforge-lm",
            )
        return manifest

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass as plain JSON values (tuples become lists, paths text)."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, dict):
        return {str(key): _plain(told) for key, told in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(told) for told in value]
    return str(value) if isinstance(value, Path) else value


def identity(kind: str, stage_version: int, config: dict[str, Any], inputs: dict[str, Any]) -> str:
    """The id of an artifact: SHA-256 (12 hex) of kind, stage version, config and what identifies each input.

    Artifacts count by content digest, raw files by relative path, size and SHA-256; never by where they lie.
    """
    request = {"kind": kind, "stage_version": stage_version, "config": config, "inputs": identify(inputs)}
    return digest_of(request)[:ID_LENGTH]


def identify(inputs: dict[str, Any]) -> dict[str, Any]:
    """What of a manifest's `inputs` belongs to identity."""
    return {role: told if isinstance(told, list) else told["sha256"] for role, told in inputs.items()}


def content_of_parts(kind: str, parts: list[dict[str, Any]], counts: dict[str, Any]) -> str:
    """The content digest of an artifact: over its parts' content digests, in order, and its counts."""
    told = [[p["path"], p["content"], [[a["path"], a["content"]] for a in p.get("attachments", [])]] for p in parts]
    return "sha256:" + digest_of({"kind": kind, "parts": told, "counts": counts})
