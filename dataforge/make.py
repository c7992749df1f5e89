"""Make an artifact: find what is there, run the missing parts, write the manifest last.

A stage killed at any instant goes on from its whole parts and ends in the same content as an undisturbed run.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any

from dataforge.errors import CorruptData, DataforgeError, MixedEnvironment, NotReproducible
from dataforge.runners import InProcess, environment_of
from dataforge.stage import Forecast, Inputs, Out, Part, Run, Stage
from dataforge.workspace import parts as files
from dataforge.workspace.artifact import Artifact, check_name, folder_of
from dataforge.workspace.content import content_of_file
from dataforge.workspace.manifest import Counts, Manifest, content_of_parts, identity, plain
from dataforge.workspace.workspace import Workspace


def make(workspace: Workspace, stage: Stage, inputs: Inputs, *, name: str, run: Run | None = None) -> Artifact:
    """The artifact of a request: found if it is there, else made from its missing parts.

    Args:
        workspace: where it lives.
        stage: what to make, with its config.
        inputs: role -> Artifact or list of RawFile. With their content they make the id.
        name: moves to this artifact; the digest decides, the name is for eyes.
        run: where to run, progress, dry run.
    Returns:
        The whole artifact (with `run.dry_run`, a Forecast in place of one that is not there).
    Raises:
        NotReproducible: another writer of the same request made other content.
        NotConserved: in is not out + dropped.
        MixedEnvironment: parts of another device class are there, and `run.allow_mixed` is off.
    """
    run = run or Run()
    check_name(name)
    if any(isinstance(given, Forecast) for given in inputs.values()):
        return _forecast(workspace, stage, inputs, name)
    began = time.time()
    request = request_of(stage, inputs)
    folder = folder_of(workspace.path, stage.kind, request["id"])
    if folder is not None and (folder / "manifest.json").is_file() and not run.remake:
        artifact = Artifact.at(folder)
        if not run.dry_run:
            workspace.point(stage.kind, name, artifact.id)
        run.progress.end(artifact.ref, {"found": len(artifact.manifest.parts), "made": 0, "reused": 0, "whole": True})
        return artifact
    if run.dry_run:
        return _forecast(workspace, stage, inputs, name)
    folder = folder or workspace.path / stage.kind / f"{name}@{request['id']}"
    folder.mkdir(parents=True, exist_ok=True)
    files.sweep(folder)
    parts = stage.split(inputs)
    _check_names(parts)
    files.write_json(folder / "request.json", {**request, "parts": [part.name for part in parts]})
    environment = environment_of(stage)
    _check_environment(folder, parts, environment, run.allow_mixed)
    for part_name in run.remake:
        _forget_part(folder, part_name, parts)
    tally = _find_parts(workspace, folder, [p for p in parts if p.name not in run.remake], environment)
    missing = [part for part in parts if not _sidecar(folder, part).is_file()]
    tally["made"] = len(missing)
    run.progress.begin(f"{stage.kind}/{folder.name}", len(parts), len(parts) - len(missing))
    ref = f"{stage.kind}/{folder.name}"
    out = Out(folder, getattr(stage, "content", content_of_file))
    try:
        if missing:
            (run.runner or InProcess()).run(stage, inputs, folder, missing, run.progress.part)
        records = [files.read_json(_sidecar(folder, part)) for part in parts]
        counts = sum((Counts.from_json(record["counts"]) for record in records), Counts())
        counts = counts + stage.finish(inputs, records, out)
        counts.check(ref)
        manifest = _manifest(request, records + out.records, counts)
        _publish_manifest(folder, manifest, ref)
    except DataforgeError as error:
        _refused(workspace, folder, parts, error)
        raise
    finally:
        files.sweep(folder)  # what worker processes left that died on the way
    workspace.catalog.add_parts(folder, [(part.key, part.stem) for part in parts])
    workspace.point(stage.kind, name, manifest.id)
    seconds = time.time() - began
    told = {**tally, "seconds": round(seconds, 3), **_machine()}
    if environment:
        told |= {"environment": environment, "allow_mixed": run.allow_mixed}
    files.write_json(folder / "run.json", told, replacing=True)
    shutil.rmtree(out.scratch, ignore_errors=True)
    run.progress.end(ref, told)
    return Artifact(folder, manifest)


def _forecast(workspace: Workspace, stage: Stage, inputs: Inputs, name: str) -> Any:
    from dataforge.forecast import forecast

    return forecast(workspace, stage, inputs, name)


def _refused(workspace: Workspace, folder: Path, parts: Sequence[Part], error: DataforgeError) -> None:
    """After a stated error: whole parts stay, for the next request to find; a folder without any goes.

    What was refused is kept beside the request, for `status`.
    """
    whole = [(part.key, part.stem) for part in parts if _sidecar(folder, part).is_file()]
    if (folder / "manifest.json").is_file():
        return
    if whole:
        workspace.catalog.add_parts(folder, whole)
        files.write_json(folder / "refused.json", {"error": error.what, "hint": error.hint}, replacing=True)
    elif not any(folder.glob("*.json.json")) and not (folder / ".scratch").exists():
        (folder / "request.json").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _publish_manifest(folder: Path, manifest: Manifest, ref: str) -> None:
    if files.write_json(folder / "manifest.json", manifest.to_json()):
        return
    there = Manifest.read(folder / "manifest.json")
    if there.content != manifest.content:
        raise NotReproducible(
            f"another writer made {there.content[:15]}..., this one {manifest.content[:15]}...",
            where=ref,
            hint="the same request must give the same content; compare the parts' content digests in the two sidecars",
        )


def request_of(stage: Stage, inputs: Inputs) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for role, given in sorted(inputs.items()):
        if isinstance(given, Artifact):
            told[role] = {"kind": given.kind, "id": given.id, "sha256": given.content}
        else:
            told[role] = [file.identity() for file in given]
    config = json.loads(json.dumps(plain(stage.config), allow_nan=False))
    artifact_id = identity(stage.kind, stage.version, config, told)
    return {"kind": stage.kind, "id": artifact_id, "stage_version": stage.version, "config": config, "inputs": told}


def _manifest(request: dict[str, Any], records: list[dict[str, Any]], counts: Counts) -> Manifest:
    told = counts.to_json()
    kept = ("path", "rows", "bytes", "sha256", "content", "key", "counts", "attachments")
    parts = [{name: record[name] for name in kept if name in record} for record in records]
    return Manifest(**request, counts=told, parts=parts, content=content_of_parts(request["kind"], parts, told))


def _check_names(parts: Sequence[Part]) -> None:
    stems = {part.stem for part in parts}
    assert len(stems) == len(parts), "two parts share a stem"
    assert not stems & {"manifest", "request", "run", "refused"}, "a part's name is reserved"


def _sidecar(folder: Path, part: Part) -> Path:
    return folder / f"{part.stem}.json"


def _find_parts(
    workspace: Workspace, folder: Path, parts: Sequence[Part], environment: dict[str, Any] | None
) -> dict[str, int]:
    """Link finished parts of other artifacts that were made of the same content. Returns how many were found where."""
    tally = {"found": 0, "reused": 0}
    for part in parts:
        if _sidecar(folder, part).is_file():
            tally["found"] += 1
            continue
        known = (part.found_in, part.stem) if part.found_in else workspace.catalog.part(part.key)
        if known is None or known[0] == folder:
            continue
        record = files.read_json(known[0] / f"{known[1]}.json")
        if environment and record.get("environment") != environment:
            continue
        tally["reused"] += _link_part(known[0], record, folder, part)
    return tally


def _link_part(source: Path, record: dict[str, Any], folder: Path, part: Part) -> bool:
    stem = record["path"].split(".")[0]
    told = [record, *record.get("attachments", [])]
    for entry in told:
        entry_source = source / entry["path"]
        if not entry_source.is_file() or entry_source.stat().st_size != entry["bytes"]:
            return False
    for entry in told:
        final = folder / (part.stem + entry["path"].removeprefix(stem))
        with contextlib.suppress(FileExistsError):
            os.link(source / entry["path"], final)
        entry["path"] = final.name
    files.sync_folder(folder)
    return files.write_json(_sidecar(folder, part), record)


def _forget_part(folder: Path, name: str, parts: Sequence[Part]) -> None:
    """Make room to write a part again: its file, sidecar and the manifest that vouches for it go."""
    for part in parts:
        if part.name == name:
            (folder / "manifest.json").unlink(missing_ok=True)
            for path in folder.glob(f"{part.stem}.*"):
                path.unlink()
            return
    known = f"parts are {parts[0].name} to {parts[-1].name}" if parts else "it has no parts of its own"
    raise CorruptData(f"there is no part {name}", where=folder.name, hint=known)


def _check_environment(
    folder: Path, parts: Sequence[Part], environment: dict[str, Any] | None, allow_mixed: bool
) -> None:
    if not environment or allow_mixed:
        return
    for part in parts:
        sidecar = _sidecar(folder, part)
        if sidecar.is_file() and (there := files.read_json(sidecar).get("environment")) != environment:
            raise MixedEnvironment(
                f"{part.name} was made with {there}, this process has {environment}",
                where=f"{folder.parent.name}/{folder.name}",
                hint="go on where it was begun, or give --allow-mixed (it is recorded in run.json)",
            )


def _machine() -> dict[str, Any]:
    return {
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "python": platform.python_version(),
        "versions": {name: distribution_version(name) for name in ("numpy", "pyarrow")},
        "cpus": os.cpu_count(),
    }
