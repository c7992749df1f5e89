"""Rows on their way to training: from a folder or from a server, the same bytes, a cursor is all the state."""

from dataforge.streams.batches import Batch
from dataforge.streams.loader import Loader
from dataforge.streams.remote import RemoteConfig
from dataforge.streams.windows import Window, WindowRequest

__all__ = ["Batch", "Loader", "RemoteConfig", "Window", "WindowRequest"]
