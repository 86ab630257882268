"""Commands of whoever keeps the service running: `doctor`, `backup`, `restore`."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli_common import Data, Host, Port
from app.settings import Settings, explain


def doctor(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON document.")] = False,
    min_free_mb: Annotated[
        int, typer.Option("--min-free-mb", min=0, help="Free disk space below which the check fails.")
    ] = 500,
) -> None:
    """Look at everything that the service needs, change nothing, and say what to do.

    A line for each check: ok, warn or fail, and the next step. Exit code 1 when a check failed. It may run beside the
    service, and before its first start.
    """
    from app import doctor as doctors

    given = {name: value for name, value in (("data_dir", data), ("host", host), ("port", port)) if value is not None}
    findings = []
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
        examined = doctors.examine(doctors.Patient(settings, min_free_mb * 2**20))
    except (ValidationError, SettingsError) as error:
        examined = iter([doctors.fail("settings", explain(error), "correct it; nothing else was looked at")])
    for finding in examined:
        findings.append(finding)
        if not as_json:
            print(doctors.line(finding), flush=True)
    print(doctors.document(findings) if as_json else doctors.summary(findings))
    raise SystemExit(doctors.exit_code(findings))
