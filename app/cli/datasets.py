"""`data import NAME FILE`: bring a table of one's own without HTTP, as POST /datasets does."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from app.cli.common import existing_file, refuse, settings_from
from app.settings import Settings


def is_own(arguments: Sequence[str]) -> bool:
    """Whether these arguments of `data` are for a table, and not for a data set that kinds of families know."""
    from models.families import DATASETS

    return len(arguments) > 2 and arguments[0] == "import" and arguments[1] not in DATASETS


def bring(arguments: Sequence[str]) -> None:
    """Exits with 1 where the file cannot be used, with 2 where it cannot be kept."""
    from app.store.families import FAMILY_NAME_PATTERN
    from app.store.tables import DEFAULT_WORKSPACE

    parser = argparse.ArgumentParser(prog="gradsmith-server data import", description="Bring a table of your own.")
    parser.add_argument("name", help="What families call it.")
    parser.add_argument("file", type=Path, help="CSV with a line of names, npz or safetensors.")
    parser.add_argument("--target", metavar="COLUMN", help="The column that is predicted.")
    parser.add_argument("--group", metavar="COLUMN", help="The column that says which rows belong to which task.")
    parser.add_argument("--input", metavar="COLUMN", action="append", default=[], help="Default: all other numbers.")
    parser.add_argument("--workspace", default=DEFAULT_WORKSPACE, help="Default: the one of a server without keys.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="Data folder of the service. Default: var.")
    chosen = parser.parse_args(list(arguments))
    if not re.fullmatch(FAMILY_NAME_PATTERN, chosen.name):
        refuse(f"{chosen.name!r} is no name: a letter, then letters, digits, - and _, 64 at most, all lower case")
    settings = settings_from(data_dir=chosen.data)
    existing_file(settings)
    _bring(settings, chosen)


def _bring(settings: Settings, chosen: argparse.Namespace) -> None:
    from app.store import datasets as store
    from app.store.errors import StoreError
    from app.store.sessions import Database
    from models.datasets.blobs import blobs_of
    from models.datasets.inspection import inspected
    from models.datasets.source import Limits
    from models.errors import DatasetRefused

    limits = Limits(settings.dataset_rows, settings.dataset_columns, settings.dataset_unpacked_bytes)
    blobs = blobs_of(settings.data_dir)
    try:
        with (
            Database(settings.resolved_database_url) as database,
            chosen.file.open("rb") as stream,
            blobs.arriving() as arrival,
        ):
            while part := stream.read(1 << 20):
                arrival.write(part)
            arrival.flush()
            found = inspected(
                arrival.path, called=str(chosen.file), inputs=chosen.input, target=chosen.target, group=chosen.group,
                limits=limits,
            )  # fmt: skip
            store.keep(database, blobs, arrival, found, chosen.name, chosen.workspace)
    except DatasetRefused as error:
        print(f"gradsmith-server: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except StoreError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or chosen.file}: {error.strerror or error}")
    print(f"{chosen.name} has {found.rows:,} rows and {len(found.inputs)} inputs.")
