"""A workspace: a folder of artifacts, names that can move, and the ways between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataforge.errors import ArtifactIncomplete, ArtifactNotFound, DataforgeError, WorkspaceError
from dataforge.registry import unknown
from dataforge.workspace import parts
from dataforge.workspace.artifact import Artifact, Ref, check_name, find
from dataforge.workspace.catalog import Catalog

FORMAT = 1


class Workspace:
    """Open the workspace in a folder, or create it.

    Args:
        path: the folder; made if it is not there.
        create: set to False to refuse a folder that is no workspace yet.
    Raises:
        WorkspaceError: the folder holds other things, or a workspace of a later format.
    """

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        self.path = Path(path).absolute()
        marker = self.path / "dataforge.json"
        if not marker.is_file():
            if not create:
                raise WorkspaceError("there is no workspace here", where=str(path), hint="`dataforge ingest` makes one")
            if self.path.exists() and (not self.path.is_dir() or (_foreign(self.path) and not marker.is_file())):
                raise WorkspaceError(
                    "the folder holds other files and is no workspace",
                    where=str(path),
                    hint="give a new or an empty folder",
                )
            self.path.mkdir(parents=True, exist_ok=True)
            parts.write_json(marker, {"format": FORMAT})
        found = parts.read_json(marker).get("format")
        if found != FORMAT:
            raise WorkspaceError(f"the workspace has format {found}, this dataforge reads {FORMAT}", where=str(path))
        self.catalog = Catalog(self.path)

    def __repr__(self) -> str:
        return f"Workspace({str(self.path)!r})"

    # -- finding

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """All whole artifacts, or those of one kind, by kind and folder name."""
        return [Artifact.at(folder) for folder in self.folders(kind)]

    def folders(self, kind: str | None = None) -> list[Path]:
        """The folders of all whole artifacts, or of one kind's, by kind and name; no manifest is read."""
        return [folder for folder in self._folders(kind) if (folder / "manifest.json").is_file()]

    def unfinished(self) -> list[dict[str, Any]]:
        """What was begun and has no manifest: its request with `ref` and the number of `done` parts."""
        told = []
        for folder in self._folders(None):
            if (folder / "manifest.json").is_file() or not (folder / "request.json").is_file():
                continue
            request = parts.read_json(folder / "request.json")
            done = sum((folder / f"{name.split('.')[0]}.json").is_file() for name in request["parts"])
            refused = parts.read_json(folder / "refused.json") if (folder / "refused.json").is_file() else None
            told.append({**request, "ref": f"{folder.parent.name}/{folder.name}", "done": done, "refused": refused})
        return told

    def open(self, ref: str | Ref | Artifact, kind: str | None = None) -> Artifact:
        """The artifact that a reference names: `plans/web` (where the name points now), `plans/web@id`, `plans/id`.

        Raises:
            ArtifactNotFound: nothing of that name or id; the hint gives the nearest name.
            ArtifactIncomplete: it was begun and not finished.
        """
        if isinstance(ref, Artifact):
            return ref
        if isinstance(ref, str):
            ref = Ref.parse(ref, kind)
        if ref.id is not None:
            return find(self.path, ref.kind, ref.id)
        pointer = self.path / "names" / ref.kind / str(ref.name)
        if not pointer.is_file():
            self._explain_missing(ref)
        return find(self.path, ref.kind, pointer.read_text(encoding="ascii").strip())

    def _explain_missing(self, ref: Ref) -> None:
        begun = [f for f in self._folders(ref.kind) if f.name.partition("@")[0] == ref.name]
        if begun:
            raise ArtifactIncomplete(
                f"{ref} was begun and is not finished",
                where=str(self.path),
                hint="run the same command again: it goes on",
            )
        known = self.names(ref.kind)
        near = unknown(ref.kind, str(ref.name), known).hint if known else f"this workspace has no {ref.kind} yet"
        raise ArtifactNotFound(f"no artifact is called {ref}", where=str(self.path), hint=near)

    def names(self, kind: str) -> dict[str, str]:
        """The names of a kind and the ids they point to now."""
        folder = self.path / "names" / kind
        found = sorted(path for path in folder.glob("*") if not path.name.startswith(".")) if folder.is_dir() else []
        return {path.name: path.read_text(encoding="ascii").strip() for path in found}

    def point(self, kind: str, name: str, artifact_id: str) -> None:
        """Let `kind/name` mean the artifact of that id from now on."""
        pointer = self.path / "names" / kind / check_name(name)
        with contextlib.suppress(FileNotFoundError):
            if pointer.read_text(encoding="ascii").strip() == artifact_id:
                return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        beside = parts.temporary(pointer)
        beside.write_text(artifact_id + "\n", encoding="ascii")
        parts.replace(beside, pointer)

    def _folders(self, kind: str | None) -> Iterator[Path]:
        if not self.path.is_dir():
            return
        for home in sorted(self.path.iterdir()):
            if home.is_dir() and home.name != "names" and (kind is None or home.name == kind):
                yield from sorted(folder for folder in home.iterdir() if "@" in folder.name and folder.is_dir())

    # -- tracing

    def lineage(self, ref: str | Artifact) -> list[Artifact]:
        """The artifact and everything it was made from, each once, nearest first."""
        seen: dict[str, Artifact] = {}
        waiting = [self.open(ref)]
        while waiting:
            artifact = waiting.pop(0)
            if artifact.id in seen:
                continue
            seen[artifact.id] = artifact
            inputs = artifact.manifest.inputs.values()
            waiting += [find(self.path, told["kind"], told["id"]) for told in inputs if isinstance(told, dict)]
        return list(seen.values())

    def users(self, artifact: Artifact) -> list[Artifact]:
        """The whole artifacts that were made from this one, directly or through others."""
        known, found = {artifact.id}, list[Artifact]()
        candidates = [a for a in self.artifacts() if a.id != artifact.id]
        while True:
            fresh = [a for a in candidates if a.id not in known and known & _input_ids(a)]
            if not fresh:
                return found
            found += fresh
            known |= {a.id for a in fresh}

    def verify(self, ref: str | Artifact) -> list[str]:
        """Read every byte of an artifact again. Returns the problems, an empty list if it is as it was made."""
        artifact = self.open(ref)
        problems = artifact.verify()
        for role, told in artifact.manifest.inputs.items():
            if isinstance(told, dict):
                try:
                    source = find(self.path, told["kind"], told["id"])
                except DataforgeError as error:
                    problems.append(f"its {role}: {error.what}")
                    continue
                if source.content != told["sha256"]:
                    problems.append(f"its {role}, {source.ref}, has other content than when this was made")
        return problems


def _input_ids(artifact: Artifact) -> set[str]:
    return {told["id"] for told in artifact.manifest.inputs.values() if isinstance(told, dict)}


def _foreign(folder: Path) -> bool:
    return any(not entry.name.startswith(".") for entry in folder.iterdir())
