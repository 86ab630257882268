"""What the commands share: the data folder's option, the settings, and refusing in one sentence."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.commands import INSTALLED, STARTED_AS, command
from app.settings import Settings, explain, misspelt

logger = logging.getLogger("gradsmith.settings")

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="FOLDER", help="Data folder: database, Valkey's file, data sets, logs.", show_default="var"
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Address to listen on. One beyond this machine needs API keys.",
        show_default="127.0.0.1",
    ),
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.", show_default="8000"),
]
RootPath = Annotated[
    str | None,
    typer.Option(
        "--root-path",
        metavar="PATH",
        help="Path below which a reverse proxy shows the service.",
        show_default="none: /",
    ),
]


def settings_from(**given: object) -> Settings:
    """The environment's, or what the command line gave in its place. Exits with 2 and says which are wrong."""
    for sentence in misspelt(os.environ):
        logger.warning("%s", sentence)
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except (ValidationError, SettingsError) as error:
        refuse(explain(error))


def existing_file(settings: Settings) -> None:
    """Refuses where SQLite is used and its file is not there: a misspelt folder must not become a new database."""
    from app.store.sqlite import missing_file

    path = missing_file(settings.resolved_database_url)
    if path is None:
        return
    if settings.database_url is not None:
        refuse(f"there is no database at {path}, which DATABASE_URL names; {command('migrate')} makes one")
    refuse(
        f"there is no database in {path.parent}; name the data folder of the service with --data. "
        f"({command('migrate', settings)} makes a new one there)"
    )


def become(
    module: str, *arguments: str, environment: dict[str, str] | None = None, data: Path | None = None
) -> NoReturn:
    """Replace this process by `python -m module`: signals and the exit code are then the program's own."""
    os.environ.update(environment or {})
    if data is not None:
        os.environ["GRADSMITH_DATA_DIR"] = str(data.resolve())
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])


def refuse(message: str, code: int = 2) -> NoReturn:
    """Say why on stderr, under the name that the command was called by, and end."""
    print(f"{os.environ.get(STARTED_AS) or INSTALLED}: {message}", file=sys.stderr)
    raise SystemExit(code)
