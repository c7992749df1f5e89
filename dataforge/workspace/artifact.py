"""An artifact: kind/name@id, a folder of parts that never changes once its manifest is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dataforge.errors import ArtifactIncomplete, ArtifactNotFound, ConfigError
from dataforge.workspace.content import content_of_file, sha256_of_file
from dataforge.workspace.manifest import Manifest, content_of_parts, identity

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_ID = re.compile(r"[0-9a-f]{12}\Z")
_KIND = re.compile(r"[a-z][a-z-]{0,31}\Z")


@dataclass(frozen=True)
class Ref:
    """How an artifact is spoken of: `kind/name`, `kind/name@id`, or `kind/id`.

    >>> Ref.parse("plans/web@5be1f0c2a934")
    Ref(kind='plans', name='web', id='5be1f0c2a934')
    >>> str(Ref.parse("plans/web"))
    'plans/web'
    """

    kind: str
    name: str | None
    id: str | None

    @classmethod
    def parse(cls, text: str, kind: str | None = None) -> Ref:
        """Read a reference. With `kind` given, `web` alone means `kind/web` and another kind is refused."""
        head, slash, tail = text.strip("/").rpartition("/")
        if not slash:
            head = kind or ""
        name, at, digest = tail.partition("@")
        if not at and _ID.match(name):
            name, digest = "", name
        named = (_NAME.match(name) if name else True) and (_ID.match(digest) if digest else True) and (name or digest)
        if not _KIND.match(head) or not named:
            raise ConfigError(
                f"{text!r} is no reference to an artifact",
                hint=f"write {kind or 'kind'}/name or {kind or 'kind'}/name@id; names have a-z, 0-9, '.', '_', '-'",
            )
        if kind and head != kind:
            raise ConfigError(f"{text!r} names {head}, but {kind} are needed here", hint=f"write {kind}/name")
        return cls(head, name or None, digest or None)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name or ''}" + (f"@{self.id}" if self.id else "")


def check_name(name: str) -> str:
    """`name` if it may name an artifact. Raises ConfigError."""
    if not _NAME.match(name) or _ID.match(name):
        raise ConfigError(
            f"{name!r} cannot name an artifact",
            hint="use up to 63 of a-z, 0-9, '.', '_', '-', a letter or digit first (12 hex digits would be an id)",
        )
    return name


@dataclass(frozen=True)
class Artifact:
    """A whole artifact on disk. Plain data: it can be sent to another process and opened there."""

    path: Path
    """Its folder, `workspace/kind/name@id`."""
    manifest: Manifest

    @classmethod
    def at(cls, path: Path | str) -> Artifact:
        """Open the artifact in a folder."""
        folder = Path(path).absolute()
        return cls(folder, Manifest.read(folder / "manifest.json"))

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def name(self) -> str:
        return self.path.name.partition("@")[0]

    @property
    def ref(self) -> str:
        """`kind/name@id`, as commands print it."""
        return f"{self.kind}/{self.name}@{self.id}"

    @property
    def content(self) -> str:
        """The content digest, `sha256:...`."""
        return self.manifest.content

    @property
    def config(self) -> dict[str, Any]:
        return self.manifest.config

    @property
    def counts(self) -> dict[str, Any]:
        return self.manifest.counts

    @property
    def workspace_path(self) -> Path:
        return self.path.parent.parent

    @cached_property
    def _by_path(self) -> dict[str, dict[str, Any]]:
        return {part["path"]: part for part in self.manifest.parts}

    def parts(self, suffix: str = "") -> list[dict[str, Any]]:
        """The manifest's entries of parts whose path ends in `suffix`, in order."""
        return [part for part in self.manifest.parts if part["path"].endswith(suffix)]

    def part(self, path: str) -> dict[str, Any]:
        """The manifest's entry of one part."""
        return self._by_path[path]

    def file(self, path: str) -> Path:
        """Where a part lies."""
        return self.path / path

    def input(self, role: str) -> Artifact:
        """The artifact that this one was made from in the given role, found by id in the same workspace."""
        told = self.manifest.inputs[role]
        return find(self.workspace_path, told["kind"], told["id"])

    def ledgers(self) -> list[Path]:
        """The drop ledgers (Parquet) of this artifact's parts."""
        attached = [a["path"] for part in self.manifest.parts for a in part.get("attachments", [])]
        return [self.path / path for path in attached if path.endswith(".dropped.parquet")]

    def verify(self) -> list[str]:
        """Read every byte again and compare with the manifest. Returns the problems found, none if it is sound."""
        problems = []
        manifest = self.manifest
        if identity(manifest.kind, manifest.stage_version, manifest.config, manifest.inputs) != manifest.id:
            problems.append("manifest.json: the id is not the digest of kind, config, stage version and inputs")
        for part in manifest.parts:
            for told in [part, *part.get("attachments", [])]:
                problems += _verify_file(self.path / told["path"], told)
        if content_of_parts(manifest.kind, manifest.parts, manifest.counts) != manifest.content:
            problems.append("manifest.json: the content digest does not follow from the parts and counts")
        return problems


def _verify_file(path: Path, told: dict[str, Any]) -> list[str]:
    if not path.is_file():
        return [f"{path.name} is missing"]
    size = path.stat().st_size
    if size != told["bytes"]:
        return [f"{path.name} has {size:,} bytes, its manifest says {told['bytes']:,}"]
    sha256 = sha256_of_file(path)
    if sha256 != told["sha256"]:
        return [f"{path.name} has sha256 {sha256[:8]}..., its manifest says {told['sha256'][:8]}..."]
    if content_of_file(path, sha256, path.name) != told["content"]:
        return [f"{path.name} decodes to other content than its manifest says"]
    return []


def find(workspace: Path, kind: str, artifact_id: str) -> Artifact:
    """The artifact of a kind by id, whatever it is named. Raises ArtifactNotFound or ArtifactIncomplete."""
    folder = folder_of(workspace, kind, artifact_id)
    if folder is None:
        raise ArtifactNotFound(
            f"no {kind} artifact has id {artifact_id}", where=str(workspace), hint=f"`dataforge list {kind}` shows them"
        )
    if not (folder / "manifest.json").is_file():
        raise ArtifactIncomplete(
            f"{kind}/{folder.name} was begun and is not finished",
            where=str(workspace),
            hint="run the same command again: it goes on",
        )
    return Artifact.at(folder)


def folder_of(workspace: Path, kind: str, artifact_id: str) -> Path | None:
    """The folder of an artifact by id: a whole one before one that is not."""
    found = sorted((workspace / kind).glob(f"*@{artifact_id}"))
    whole = [folder for folder in found if (folder / "manifest.json").is_file()]
    return next(iter(whole or found), None)
