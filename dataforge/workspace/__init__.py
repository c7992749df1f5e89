"""Where artifacts live, and how one knows that they are whole."""

from dataforge.workspace.artifact import Artifact, Ref
from dataforge.workspace.manifest import Counts, Manifest
from dataforge.workspace.workspace import Workspace

__all__ = ["Artifact", "Counts", "Manifest", "Ref", "Workspace"]
