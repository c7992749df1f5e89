"""Going down without breaking anything: what SIGTERM begins and when patience ends."""

from __future__ import annotations

import time


class Drain:
    """Whether this process is going down, and whether windows that are under way must be cut short."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: float | None = None

    @property
    def began(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        """Seconds since it began, 0 before."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def begin(self) -> None:
        """Say that this process is going down; only the first call counts."""
        if self._since is None:
            self._since = time.monotonic()

    def overdue(self) -> bool:
        """Whether windows have had the time they may take."""
        return self.began and self.seconds >= self._patience_s
