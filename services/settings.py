"""How the service runs: one frozen object, from arguments first, from `DATAFORGE_*` variables for what is not given."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one service process. `DATAFORGE_PORT=8000` sets `port`, and so on for every name."""

    model_config = SettingsConfigDict(env_prefix="DATAFORGE_", frozen=True, extra="ignore")

    workspace: Path = Path("workspace")
    """Folder of the workspace that is served."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback at least one API key must exist."""
    port: int = Field(8765, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    metrics_host: str = "127.0.0.1"
    """Address of `/metrics`, which asks for no key: keep it on an internal network."""
    metrics_port: int = Field(0, ge=0, le=65535)
    """Port of `/metrics`; 0 takes a free one."""
    no_auth: bool = False
    """Ask for no keys. Loopback only, and then only requests that were addressed to a loopback name are answered."""

    auth_cache_s: float = Field(5.0, ge=0)
    """How long a key that was looked up is believed: a revoked key may be accepted for so long."""
    auth_grace_s: float = Field(900.0, ge=0)
    """How long it is believed when the key database cannot be read, so that streams go on."""

    max_body_bytes: int = Field(1 << 20, ge=1)
    """Largest request body."""
    max_windows: int = Field(64, ge=1)
    """Windows sent at the same time by this process; more are answered with 503 before any work is done."""
    max_windows_per_key: int = Field(16, ge=1)
    """Windows sent at the same time to one key; more are answered with 429."""
    window_timeout_s: float = Field(120.0, gt=0)
    """Longest time to send one window; a reader that is slower loses its connection and asks again."""
    max_open_rows: int = Field(32, ge=1)
    """Rows artifacts that are held mapped."""
    gather_threads: int = Field(default_factory=lambda: max(2, min(8, os.cpu_count() or 2)), ge=1)
    """Threads that gather tokens for windows."""

    build_wait_s: float = Field(2.0, ge=0)
    """A POST that takes longer is answered with 202 and a job."""
    max_waiting_jobs: int = Field(64, ge=1)
    """Jobs that may wait for their turn; more are answered with 503."""

    drain_s: float = Field(20.0, ge=0)
    """After SIGTERM: how long windows that are under way may take before they are cut short with a GOAWAY frame."""
    drain_delay_s: float = Field(0.0, ge=0)
    """After SIGTERM: how long to go on accepting requests while `/readyz` says 503, for load balancers to notice."""
    keep_alive_s: int = Field(75, ge=1)
    """How long an idle connection is kept."""
