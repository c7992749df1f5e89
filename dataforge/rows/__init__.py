"""Training rows: which stretch of which document makes row i; tokens stay in the shards. `rows.pack` has the step."""

from dataforge.rows.reader import Rows, Trace

__all__ = ["Rows", "Trace"]
