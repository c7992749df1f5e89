"""Workspaces: references, names, lineage, verification, the catalog that can be deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataforge.corpus import IngestConfig, ingest
from dataforge.dedup import dedup
from dataforge.errors import ArtifactNotFound, ConfigError, WorkspaceError
from dataforge.workspace import Artifact, Ref, Workspace


def test_a_reference_is_read_and_written_back() -> None:
    for text in ("plans/web", "plans/web@5be1f0c2a934"):
        assert str(Ref.parse(text)) == text
    assert Ref.parse("web", "plans") == Ref("plans", "web", None)
    assert Ref.parse("plans/5be1f0c2a934") == Ref("plans", None, "5be1f0c2a934")


@pytest.mark.parametrize(
    "text", ["web", "plans/", "plans/Web", "plans/../x", "/etc", "plans/a b", "plans/web@12", "a/b/c"]
)
def test_a_reference_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Ref.parse(text)


def test_a_reference_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="plans are needed"):
        Ref.parse("clusters/web", "plans")


def test_an_artifact_is_found_by_name_by_id_and_by_both(workspace: Workspace, documents: Artifact) -> None:
    for ref in ("documents/tiny-dedup", f"documents/{documents.id}", documents.ref, f"documents/other@{documents.id}"):
        assert workspace.open(ref).id == documents.id


def test_a_missing_artifact_names_the_nearest(workspace: Workspace, documents: Artifact) -> None:
    with pytest.raises(ArtifactNotFound) as caught:
        workspace.open("documents/tiny-dedub")
    assert "tiny-dedup" in str(caught.value.hint)


def test_a_name_moves_and_the_old_artifact_stays(workspace: Workspace, corpus: Path) -> None:
    first = ingest(workspace, [corpus / "first.jsonl"], name="web")
    second = ingest(workspace, [corpus / "second.jsonl"], name="web")
    assert first.id != second.id
    assert workspace.open("documents/web").id == second.id
    assert workspace.open(first.ref).id == first.id


def test_the_same_request_under_another_name_is_the_same_artifact(workspace: Workspace, corpus: Path) -> None:
    first = ingest(workspace, [corpus], name="one")
    second = ingest(workspace, [corpus], name="two")
    assert (first.path, first.id) == (second.path, second.id)
    assert workspace.open("documents/two").id == first.id


def test_lineage_and_users_are_each_other_s_inverse(workspace: Workspace, documents: Artifact) -> None:
    kinds = [artifact.kind for artifact in workspace.lineage(documents)]
    assert kinds[0] == "documents"
    assert sorted(kinds) == ["documents", "documents", "duplicates", "text-hashes"]
    root = workspace.open("documents/tiny")
    assert documents.id in {user.id for user in workspace.users(root)}


def test_verify_finds_each_kind_of_damage(workspace: Workspace, documents: Artifact) -> None:
    root = workspace.open("documents/tiny")
    assert workspace.verify(root) == []
    part = root.file(root.manifest.parts[0]["path"])
    good = part.read_bytes()
    for bad in (good[:-1], good + b"x", good[:100] + bytes([good[100] ^ 1]) + good[101:]):
        part.write_bytes(bad)
        assert workspace.verify(root)
    part.write_bytes(good)
    assert workspace.verify(root) == []
    part.unlink()
    assert workspace.verify(root) == [f"{part.name} is missing"]


def test_verify_finds_a_manifest_that_was_edited(workspace: Workspace, documents: Artifact) -> None:
    path = documents.path / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"documents": 198', '"documents": 199'))
    assert workspace.verify(workspace.open(documents.ref))
    path.write_text(text.replace('"rule": "exact-duplicate"', '"rule": "exact"'))
    assert workspace.verify(workspace.open(documents.ref))


def test_the_catalog_can_be_deleted_or_damaged(workspace: Workspace, corpus: Path) -> None:
    first = ingest(workspace, [corpus / "first.jsonl"], name="web")
    key = first.manifest.parts[0]["key"]
    for spoil in (lambda p: p.unlink(), lambda p: p.write_bytes(b"this is no database" * 100)):
        for extra in ("-wal", "-shm"):
            Path(f"{workspace.catalog.path}{extra}").unlink(missing_ok=True)
        spoil(workspace.catalog.path)
        assert workspace.catalog.part(key) == (first.path, "part-00000")


def test_a_folder_of_other_files_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(WorkspaceError):
        Workspace(tmp_path)
    with pytest.raises(WorkspaceError):
        Workspace(tmp_path / "none", create=False)


def test_opening_twice_changes_nothing(workspace: Workspace, corpus: Path) -> None:
    ingest(workspace, [corpus], name="web", config=IngestConfig(holdout=0.1))
    before = {path: path.stat().st_mtime_ns for path in workspace.path.rglob("*.json")}
    again = ingest(Workspace(workspace.path), [corpus], name="web", config=IngestConfig(holdout=0.1))
    dedup(workspace, again, name="web")
    assert {path: path.stat().st_mtime_ns for path in before} == before
