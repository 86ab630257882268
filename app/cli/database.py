"""The database that a command works on, and the refusals of one that cannot be used."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.cli.common import existing_file, refuse

if TYPE_CHECKING:
    from app.settings import Settings
    from app.store.sessions import Database


@contextlib.contextmanager
def database_of(settings: Settings, *, make: bool = False) -> Iterator[Database]:
    """The database, migrated; with `make` an empty one gets its tables. Exits with 2 when it cannot be used."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.store.errors import StoreError
    from app.store.sessions import Database

    if not make:
        existing_file(settings)
    try:
        if make:
            _make_where_there_is_none(settings)
        with Database(settings.resolved_database_url) as database:
            database.check()
            yield database
    except OSError as error:
        refuse(f"the data folder {settings.data_dir} cannot be used: {error.strerror}; choose another with --data")
    except StoreError as error:
        refuse(str(error))
    except SQLAlchemyError as error:
        refuse(f"the database does not answer or refuses: {str(error).splitlines()[0]}; check DATABASE_URL")


def _make_where_there_is_none(settings: Settings) -> None:
    """The folder and the database in it; an empty one gets its tables. Says so: the folder may have been misspelt."""
    from app import private
    from app.store.sessions import Database
    from app.store.sqlite import missing_file

    path = missing_file(settings.resolved_database_url)
    if path is None:
        with Database(settings.resolved_database_url) as database:
            if database.revision() is not None:
                return
    else:
        private.make_folder(settings.data_dir)
    import migrations  # Alembic: a quarter of a second

    migrations.upgrade(settings.resolved_database_url)
    if path is not None:
        print(f"Made the database {path}: there was none.", file=sys.stderr)
