"""Configuration: one frozen value, read from the environment once and passed down."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting is an environment variable of the same name in capitals, `GRADSMITH_` before it
    (the two store URLs are read as `DATABASE_URL` and `REDIS_URL`)."""

    model_config = SettingsConfigDict(env_prefix="GRADSMITH_", frozen=True, extra="ignore", populate_by_name=True)

    data_dir: Path = Field(Path("var"), description="Where SQLite, the bundled Valkey server and data sets live.")
    database_url: str | None = Field(None, validation_alias="DATABASE_URL", description="Default: SQLite in data_dir.")
    redis_url: SecretStr | None = Field(
        None, validation_alias="REDIS_URL", description="Default: the bundled Valkey server's socket in data_dir."
    )
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    auth: Literal["auto", "off"] = Field(
        "auto", description="`off` serves without keys on an address other than loopback."
    )
    allowed_hosts: tuple[str, ...] = Field((), description="Host headers accepted beside the loopback names.")
    body_limit_bytes: int = Field(1_000_000, ge=1)
    worker_memory_bytes: int | None = Field(
        None, description="Memory that a job may need; default: this machine's. A larger job is refused at POST."
    )

    lease_seconds: float = Field(60.0, gt=0, description="A worker that has not renewed its job by then has lost it.")
    lease_renewal_seconds: float = Field(15.0, gt=0)
    dispatch_interval_seconds: float = Field(0.2, gt=0, description="Pause of the dispatcher between rounds.")
    reconcile_interval_seconds: float = Field(10.0, gt=0)
    max_lost_workers: int = Field(3, ge=1, description="A job that lost this many workers fails as worker_lost.")
    retry_backoff_seconds: float = Field(2.0, ge=0, description="Doubles with each lost worker.")
    cancel_poll_seconds: float = Field(1.0, gt=0)
    checkpoint_interval_seconds: float = Field(60.0, gt=0)
    stream_flush_seconds: float = Field(0.2, gt=0, description="Points wait at most this long before they are sent.")
    stream_flush_points: int = Field(64, ge=1)
    stream_length: int = Field(20_000, ge=100, description="Entries kept in a job's live stream.")
    curve_flush_seconds: float = Field(10.0, gt=0, description="Points are durable at the latest after this long.")
    curve_chunk_points: int = Field(4096, ge=1)

    @property
    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL, with psycopg 3 as the driver of Postgres."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir.resolve() / 'gradsmith.db'}"
        for scheme in ("postgresql://", "postgres://"):
            if self.database_url.startswith(scheme):
                return "postgresql+psycopg://" + self.database_url.removeprefix(scheme)
        return self.database_url

    @property
    def resolved_redis_url(self) -> str:
        """`REDIS_URL`, or the socket of the server that `gradsmith-server serve` keeps in the data folder."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"unix://{quote(str(embedded_socket(self.data_dir)))}"


def embedded_socket(data_dir: Path) -> Path:
    """Where the bundled server of this data folder listens.

    The kernel takes at most 107 bytes (103 on macOS) for a unix socket's path, so a data folder with a long one has its
    socket in a private folder under /tmp, named by a hash: every process finds the same without being told.
    """
    folder = data_dir.resolve()
    if len(os.fsencode(folder / "v.sock")) <= 100:
        return folder / "v.sock"
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path("/tmp") / f"gradsmith-{os.getuid()}-{digest}" / "v.sock"
