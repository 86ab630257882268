"""The command `gradsmith-server`. It never imports torch: what needs it is a program of its own."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Annotated

import typer

from app import private
from app.cli import operation
from app.cli.baselines import baselines_commands
from app.cli.common import Data, Host, Port, RootPath, become, existing_file
from app.cli.common import refuse as _refuse
from app.cli.common import settings_from as _settings
from app.cli.datasets import data_commands
from app.cli.keys import keys_commands
from app.commands import INSTALLED, STARTED_AS, started_as
from app.commands import command as named
from gradsmith.cli.style import Commands

_HELP = """Run the Gradsmith server and its parts.

Settings are environment variables; docs/operations.md lists them, `doctor` checks them.

Exit codes: 0 done, 1 failed, 2 wrong arguments or settings, 130 Ctrl-C.
"""
app = Commands("gradsmith-server", _HELP)
families_commands = Commands("families")

app.add_typer(keys_commands)
app.add_typer(baselines_commands)
app.add_typer(families_commands)
app.add_typer(data_commands)
for command in (operation.doctor, operation.backup, operation.restore):
    app.command()(command)


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    root_path: RootPath = None,
    workers: Annotated[int, typer.Option("--workers", min=0, max=256, help="Worker processes: jobs run at once.")] = 1,
    api_processes: Annotated[
        int, typer.Option("--api-processes", min=1, max=64, help="API processes; each uses up to one core.")
    ] = 1,
) -> None:
    """Run everything: store, migrations, workers, API.

    Starts the bundled Valkey server unless REDIS_URL is set, and keeps its data in SQLite unless DATABASE_URL is set.
    Ctrl-C or SIGTERM ends every part; a running job writes a checkpoint and goes on at the next start.
    """
    from app import logs
    from app.auth import UnguardedAddress
    from app.host.embedded import EmbeddedStoreError
    from app.host.server import AddressError
    from app.host.supervise import ServeError, Supervisor

    logs.configure()  # a misspelt setting is logged before the settings are known
    settings = _settings(data_dir=data, host=host, port=port, root_path=root_path)
    logs.configure(settings.log_format, settings.log_level)
    try:
        Supervisor(settings, workers, api_processes).run()
    except (ServeError, AddressError, EmbeddedStoreError, UnguardedAddress) as error:
        _refuse(str(error))


@app.command()
def api(host: Host = None, port: Port = None, data: Data = None, root_path: RootPath = None) -> None:
    """Run one API process. DATABASE_URL and REDIS_URL name the stores; `migrate` must have run."""
    settings = _settings(data_dir=data, host=host, port=port, root_path=root_path)
    existing_file(settings)
    become(
        "app.host.server",
        environment={
            "GRADSMITH_HOST": settings.host,
            "GRADSMITH_PORT": str(settings.port),
            "GRADSMITH_ROOT_PATH": settings.root_path or "",
        },
        data=data,
    )


@app.command()
def worker(
    queues: Annotated[
        str, typer.Option("--queues", metavar="LIST", help="Queues to work on, separated by commas: cpu, gpu.")
    ] = "cpu",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name in logs and leases.", show_default="host-pid")
    ] = None,
    data: Data = None,
) -> None:
    """Run one worker process.

    It takes jobs from the queues, one at a time, until SIGTERM.

    On SIGTERM the running job writes a checkpoint and goes back to the queue; a second signal, or 10 s, kills it.
    """
    if unknown := sorted({queue.strip() for queue in queues.split(",")} - {"cpu", "gpu"}):
        _refuse(f"--queues {queues}: there is no queue {unknown[0]!r}; there are cpu and gpu")
    existing_file(_settings(data_dir=data))  # refuses here, in one sentence, what the worker could not use
    become("workers.main", "--queues", queues, *(("--name", name) if name else ()), data=data)


@app.command()
def migrate(
    data: Data = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="SCHEMA", help="Migrate back to this schema. Data that only newer schemas have is lost."
        ),
    ] = None,
) -> None:
    """Bring the database up to date.

    It creates or alters its tables, and is safe to run again, before every start for example.
    """
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    import migrations  # Alembic: a quarter of a second that no other command needs
    from app.store import sqlite
    from app.store.errors import StoreError
    from app.store.sessions import Database

    settings = _settings(data_dir=data)
    try:
        if to is None:
            private.make_folder(settings.data_dir)
            migrations.upgrade(settings.resolved_database_url)
            with Database(settings.resolved_database_url) as database:
                database.check()  # what was lost since it was migrated comes back by no migration
        elif to in migrations.revisions():
            existing_file(settings)
            migrations.downgrade(settings.resolved_database_url, to)
        else:
            _refuse(f"--to {to}: there is no such schema; there are {', '.join(sorted(migrations.revisions()))}")
    except CommandError:
        _refuse(
            f"--to {to}: the database is not as far as that; {named('migrate', settings)} without --to brings it up"
        )
    except OSError as error:
        _refuse(private.unusable(settings.data_dir, error))
    except StoreError as error:
        _refuse(str(error))
    except SQLAlchemyError as error:
        # The driver's first line says what it met; SQLAlchemy's further lines hold statements and a link.
        said = str(error).splitlines()[0]
        if (path := sqlite.file_of(settings.resolved_database_url)) is not None:
            _refuse(f"the database {path} cannot be used: {said}; {sqlite.advice(said) or named('doctor', settings)}")
        _refuse(f"the database does not answer or refuses: {said}; check DATABASE_URL")


@families_commands.command()
def check(
    name: Annotated[str, typer.Argument(help="A family of GET /families, or a kind, which is checked as it comes.")],
    data: Data = None,
) -> None:
    """Check what every family promises on one of them.

    Gradients, independence of other tasks, splits, seeds, dtypes and the predicted memory. Needs torch.
    """
    if importlib.util.find_spec("torch") is None:
        _refuse("families check computes tasks, which needs torch: pip install 'gradsmith-server[worker]'")
    become("models.tasks.check", name, data=data)


@families_commands.callback()
def families() -> None:
    """Check families of tasks, your own among them."""


def main() -> None:
    started_as(sys.argv[0], os.environ)
    app(prog_name=os.environ.get(STARTED_AS) or INSTALLED)
