"""Raw files in, numbered documents out."""

from dataforge.corpus.document import DocumentPart, Documents
from dataforge.corpus.ingest import IngestConfig, append, ingest

__all__ = ["DocumentPart", "Documents", "IngestConfig", "append", "ingest"]
