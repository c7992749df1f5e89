"""Token shards: tokens in document order, checksums on every page, blind to plans. `shards.tokenize` has the step."""

from dataforge.shards.reader import Shards
from dataforge.shards.writer import ShardWriter, write_index

__all__ = ["ShardWriter", "Shards", "write_index"]
