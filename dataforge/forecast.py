"""What a step would make, and how long it may take: the answer to `--dry-run`."""

from __future__ import annotations

from typing import Any

from dataforge.make import request_of
from dataforge.stage import Forecast, Inputs, Stage
from dataforge.workspace import parts as files
from dataforge.workspace.artifact import Artifact, folder_of
from dataforge.workspace.workspace import Workspace


def forecast(workspace: Workspace, stage: Stage, inputs: Inputs, name: str) -> Forecast:
    """Documents, bytes, tokens, disk and seconds of a step that is not run.

    Counts are those of the inputs, for the share of parts that are still to be made. Disk and seconds follow the newest
    artifact of the kind in this workspace, per byte of text; without one, disk is 0 and seconds None (not known).
    """
    ahead = [given for given in inputs.values() if isinstance(given, Forecast)]
    if ahead:
        widest = max(ahead, key=lambda given: given.bytes)
        disk, seconds = _rates(workspace, stage.kind, widest.bytes)
        return Forecast(
            stage.kind, name, None, documents=widest.documents, bytes=widest.bytes, disk_bytes=disk, seconds=seconds
        )
    request = request_of(stage, inputs)
    folder = folder_of(workspace.path, stage.kind, request["id"])
    documents, size = _sizes(inputs)
    if folder is not None and (folder / "manifest.json").is_file():
        there = Artifact.at(folder)
        whole = len(there.manifest.parts)
        return Forecast(stage.kind, name, there.id, whole, whole, documents, size, seconds=0.0)
    parts = stage.split(inputs)
    found = 0
    for part in parts:
        here = folder is not None and (folder / f"{part.stem}.json").is_file()
        found += here or workspace.catalog.part(part.key) is not None
    share = 1 - found / len(parts) if parts else 1.0
    disk, seconds = _rates(workspace, stage.kind, int(size * share))
    told = (int(documents * share), int(size * share))
    return Forecast(stage.kind, name, request["id"], len(parts), found, *told, disk_bytes=disk, seconds=seconds)


def _sizes(inputs: Inputs) -> tuple[int, int]:
    documents = size = 0
    for given in inputs.values():
        if isinstance(given, Artifact):
            out: dict[str, Any] = given.counts.get("out", {})
            documents, size = max(documents, out.get("documents", 0)), max(size, out.get("bytes", 0))
        else:
            size = max(size, sum(file.size_bytes for file in given))
    return documents, size


def _rates(workspace: Workspace, kind: str, size: int) -> tuple[int, float | None]:
    """Disk bytes and seconds for `size` bytes of text, as the newest artifact of the kind needed."""
    newest: tuple[str, int, float, int] | None = None
    for artifact in workspace.artifacts(kind):
        told = artifact.path / "run.json"
        text = artifact.counts.get("in", {}).get("bytes", 0)
        if told.is_file() and text:
            run = files.read_json(told)
            disk = sum(part["bytes"] for part in artifact.manifest.parts)
            if run.get("reused", 0) == 0 and (newest is None or run["ended"] > newest[0]):
                newest = (run["ended"], text, run["seconds"], disk)
    if newest is None:
        return 0, None
    _, text, seconds, disk = newest
    return int(disk * size / text), seconds * size / text
