"""Configuration: one frozen value, read from the environment once and passed down."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from models.spec import BackendName

DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg", "sqlite", "sqlite+pysqlite")
_URLS = ("DATABASE_URL", "REDIS_URL")  # read without the prefix; what they hold may be a password
REDIS_SCHEMES = ("redis", "rediss", "unix")
_DATABASE_FORMS = (
    "postgresql://USER:PASSWORD@HOST:5432/NAME or sqlite:////FOLDER/FILE.db; unset, SQLite in the data folder is used"
)
_REDIS_FORMS = (
    "redis://HOST:6379/0, rediss://HOST:6379/0 (TLS) or unix:///FOLDER/SOCKET; "
    "unset, the server that `serve` starts in the data folder is used"
)
# Read by the SDK, its kernel, ./run, docker-compose.yml and app.commands.
_READ_BY_OTHERS = (
    "API_KEY", "CACHE_DIR", "COMMAND", "FAMILIES", "KERNELS", "MIN_FREE_MB", "PUBLISHED_PORT", "PYTHON", "URL",
)  # fmt: skip


class Settings(BaseSettings):
    """Every setting is an environment variable of the same name in capitals, `GRADSMITH_` before it
    (the two store URLs are read as `DATABASE_URL` and `REDIS_URL`)."""

    model_config = SettingsConfigDict(
        env_prefix="GRADSMITH_",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,  # a URL holds a password
    )

    data_dir: Path = Field(Path("var"), description="Where SQLite, the bundled Valkey server and data sets live.")
    database_url: str | None = Field(None, validation_alias="DATABASE_URL", description="Default: SQLite in data_dir.")
    redis_url: SecretStr | None = Field(
        None, validation_alias="REDIS_URL", description="Default: the bundled Valkey server's socket in data_dir."
    )
    # Each process reads it where it opens the store; it is here so that a wrong one is refused when a server starts.
    blobs: str | None = Field(None, description="s3://BUCKET/PREFIX for users' data sets; default: in `data_dir`.")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    root_path: str | None = Field(
        None,
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="The path below which a reverse proxy shows the service, such as /gradsmith.",
    )
    auth: Literal["auto", "on", "off"] = Field(
        "auto", description="`auto` asks for API keys unless bound to loopback; `on` always, `off` never."
    )
    key_cache_seconds: float = Field(5.0, ge=0, description="A revoked key may still work for this long.")
    rate_limit: str | None = Field(
        None,
        description="Calls allowed to each key, such as 6000/minute (with keys the default), or `off`. Without keys "
        "nobody is limited unless it is set: then each address beyond this machine.",
    )
    max_active_jobs: int | None = Field(
        1000, ge=1, description="Queued and running jobs of a key that has no limit of its own."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Host headers accepted beside the loopback names."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`json`: a JSON object a line; `text`: columns; `auto`: text on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="`debug` tells of reads too, `warning` of no request that went well."
    )
    body_limit_bytes: int = Field(1_000_000, ge=1)
    dataset_limit_bytes: int = Field(268_435_456, ge=1, description="Most bytes of a file of POST /datasets.")
    optimizer_limit_bytes: int = Field(33_554_432, ge=1, description="Most bytes of a file of POST /optimizers.")
    dataset_unpacked_bytes: int = Field(
        2_147_483_648, ge=1, description="Most bytes that an npz of POST /datasets may unpack to."
    )
    dataset_rows: int = Field(10_000_000, ge=1, description="Most rows of a file of POST /datasets.")
    dataset_columns: int = Field(1_000, ge=1, le=10_000, description="Most columns of a file of POST /datasets.")
    database_connections: int = Field(
        40, ge=3, description="Most connections of an API process to Postgres; live streams hold none."
    )
    body_timeout_seconds: float = Field(30.0, gt=0, description="A body that is not whole by then is answered 408.")
    head_timeout_seconds: float = Field(
        10.0, gt=0, description="A request line and headers that are not whole by then are answered 408."
    )
    check_data_sets: bool = Field(
        True, description="Whether POST /jobs refuses a job whose data sets are not in `data_dir`."
    )
    worker_memory_bytes: int | None = Field(
        None, description="Memory that a job may need; default: this machine's. A larger job is refused at POST."
    )
    worker_threads: int | None = Field(
        None,
        ge=1,
        description="Most threads that `resources.threads` auto may find, and most processes that an evaluation's "
        "baselines run in; default: the CPUs of a worker, of which `serve` gives each of its workers the same share.",
    )
    backend: BackendName = Field("auto", description="`resources.backend` of jobs that name none.")
    # The kernels read these two themselves, in each job: here, so that a wrong one is refused when a server starts.
    native: Literal["auto", "off", "avx512", "avx2", "portable"] = Field(
        "auto", description="The CPU's kernel: `off`, or the highest instruction set to use."
    )
    triton: Literal["auto", "off", "bf16"] = Field("auto", description="The kernel on CUDA: `off`, or its products.")

    lease_seconds: float = Field(60.0, gt=0, description="A worker that has not renewed its job by then has lost it.")
    lease_renewal_seconds: float = Field(15.0, gt=0)
    dispatch_interval_seconds: float = Field(0.2, gt=0, description="Pause of the dispatcher between rounds.")
    reconcile_interval_seconds: float = Field(10.0, gt=0)
    warm_spare: bool = Field(
        True, description="Whether a worker keeps a process ready, with torch imported, for its next job."
    )
    process_start_seconds: float = Field(
        300.0, gt=0, description="A worker kills a job process that is not ready by then."
    )
    process_answer_seconds: float = Field(
        10.0, gt=0, description="A worker replaces a waiting process that has not answered by then."
    )
    max_lost_workers: int = Field(3, ge=1, description="A job that lost this many workers fails as worker_lost.")
    retry_backoff_seconds: float = Field(2.0, ge=0, description="Doubles with each lost worker.")
    cancel_poll_seconds: float = Field(1.0, gt=0)
    checkpoint_interval_seconds: float = Field(60.0, gt=0)
    stream_flush_seconds: float = Field(0.2, gt=0, description="Points wait at most this long before they are sent.")
    stream_flush_points: int = Field(64, ge=1)
    stream_length: int = Field(20_000, ge=100, description="Entries kept in a job's live stream.")
    curve_flush_seconds: float = Field(10.0, gt=0, description="Points are durable at the latest after this long.")
    curve_chunk_points: int = Field(4096, ge=1)

    @field_validator("native", "triton", mode="before")
    @classmethod
    def _as_the_kernels_read_it(cls, choice: object) -> object:
        return choice.strip().lower() or "auto" if isinstance(choice, str) else choice

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _a_list(cls, hosts: object) -> object:
        # pydantic-settings would read it too, and end at it before it has seen the other settings.
        if not isinstance(hosts, str):
            return hosts
        try:
            found = json.loads(hosts)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list):
            raise ValueError('it must be a JSON list, for example ["gradsmith.example.org"]')
        return found

    @field_validator("rate_limit")
    @classmethod
    def _a_rate(cls, rate: str | None) -> str | None:
        if rate is None or rate.strip().lower() == "off":
            return rate and "off"
        from limits import parse  # whoever sets this variable needs it anyway

        try:
            possible = parse(rate).amount > 0
        except ValueError:
            possible = False
        if not possible:
            raise ValueError("it must be a number and a time, such as 6000/minute, 100 per 10 seconds, or off")
        return rate

    @field_validator("blobs")
    @classmethod
    def _a_bucket(cls, url: str | None) -> str | None:
        if url is None or not url.strip():
            return None
        from models.datasets.bucket import INSTALL, Place

        Place.named(url.strip())
        if find_spec("boto3") is None:
            raise ValueError(f"a bucket needs boto3, which is not installed here: {INSTALL}")
        return url.strip()

    @field_validator("database_url")
    @classmethod
    def _a_database_of_ours(cls, url: str | None) -> str | None:
        if url is None:
            return None
        _refuse_other_schemes(url, DATABASE_SCHEMES, _DATABASE_FORMS)
        from sqlalchemy.engine import make_url  # whoever sets this variable needs SQLAlchemy anyway
        from sqlalchemy.exc import ArgumentError

        try:
            make_url(url)
        except (ArgumentError, ValueError):  # a port that is no number; their words would show the password
            raise ValueError(f"it cannot be read as a URL; the forms are {_DATABASE_FORMS}") from None
        return url

    @field_validator("redis_url")
    @classmethod
    def _a_redis_of_ours(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        _refuse_other_schemes(url.get_secret_value(), REDIS_SCHEMES, _REDIS_FORMS)
        from redis.connection import parse_url  # as above

        try:
            parse_url(url.get_secret_value())  # type: ignore[no-untyped-call]
        except ValueError:
            raise ValueError(f"it cannot be read as a URL; the forms are {_REDIS_FORMS}") from None
        return url

    @property
    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL, with psycopg 3 as the driver of Postgres."""
        if self.database_url is None:
            from sqlalchemy.engine import URL  # not above: the command line's help needs no SQLAlchemy

            # A folder's name may hold `?`, `#` or `%`, which mean something in a URL: SQLAlchemy quotes them.
            return str(URL.create("sqlite", database=str(self.data_dir.resolve() / "gradsmith.db")))
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


def wrong(error: ValidationError | SettingsError) -> list[str]:
    """A sentence for each setting that does not fit; never what a store's URL holds."""
    if isinstance(error, SettingsError):  # pydantic's, for what it cannot read at all
        return [str(error)]
    sentences: dict[str, str] = {}  # the first of each setting: a list may be wrong in many places
    for found in error.errors():
        name = str(found["loc"][0]).upper()
        message = found["msg"].removeprefix("Value error, ")
        shown = name if name in _URLS else f"GRADSMITH_{name}={_shown(found['input'])}"
        sentences.setdefault(name, f"setting {shown}: {message}")
    return list(sentences.values())


def explain(error: ValidationError | SettingsError) -> str:
    """All that is wrong with the settings: one in one sentence, several in a line each."""
    sentences = wrong(error)
    if len(sentences) == 1:
        return sentences[0]
    return "\n  ".join([f"{len(sentences)} settings cannot be used:", *sentences])


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def misspelt(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each GRADSMITH_ variable of `environment` that nothing reads, with the one that it may mean.

    GRADSMITH_TEST_... is the test suite's.
    """
    known = {name.upper(): f"GRADSMITH_{name.upper()}" for name in (*Settings.model_fields, *_READ_BY_OTHERS)}
    known |= {name: name for name in _URLS}
    sentences = []
    for variable in sorted(environment):
        name = variable.removeprefix("GRADSMITH_")  # with the prefix all names are alike
        if name == variable or name.startswith("TEST_") or variable in known.values():
            continue
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {known[near[0]]}?" if near else "docs/operations.md lists them all"
        sentences.append(f"{variable} is no setting of Gradsmith and is ignored: {advice}")
    return sentences


def _refuse_other_schemes(url: str, schemes: tuple[str, ...], forms: str) -> None:
    scheme, separator, _ = url.partition("://")
    if separator and scheme in schemes:
        return
    # A text that is no URL may be a password that landed in the wrong variable.
    seen = f"{scheme}://... cannot be used" if separator and re.fullmatch(r"[\w+.-]{1,30}", scheme) else "it is no URL"
    raise ValueError(f"{seen}; the forms are {forms}")


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
