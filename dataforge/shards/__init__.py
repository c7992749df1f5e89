"""Token shards, what `tokenize` writes: in document order, blind to clusters and plans, checksums on every page."""

from dataforge.shards.reader import Shards
from dataforge.shards.writer import ShardWriter, write_index

__all__ = ["ShardWriter", "Shards", "write_index"]
