"""A service in a process of its own for the time of a `with` block: it shares no interpreter lock with the trainer."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from dataforge.errors import StreamError
from dataforge.workspace import Artifact, Workspace

_START_S = 60.0
_STOP_S = 30.0


@contextlib.contextmanager
def serving(workspace: Workspace, rows: Artifact) -> Iterator[str]:
    """The URL that a loader reads `rows` from, served on a free loopback port without keys until the block ends.

    Raises:
        StreamError: the service does not start within a minute; what it said on stderr is in the error.
    """
    command = [sys.executable, "-m", "dataforge.cli", "serve", "--no-auth", "--port", "0"]
    command += ["--workspace", str(workspace.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield f"{_url(process)}/v1/rows/{rows.id}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _url(process: subprocess.Popen[str]) -> str:
    """The first line that the service prints: where it listens."""
    stop = threading.Timer(_START_S, process.kill)
    stop.start()
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline().strip()
    stop.cancel()
    if not line:
        told = process.stderr.read().strip().splitlines()
        raise StreamError("the service did not start", where="dataforge serve", hint=told[-1] if told else None)
    # Its log must not fill the pipe while nobody reads it.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return line
