"""How a command ends: one exit code for each kind of failure, and one line on stderr that says what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from gradsmith import errors
from gradsmith.cli import show
from gradsmith.cli.spoken import as_commands

JOB_FAILED, USAGE, AUTHENTICATION, NOT_FOUND, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 5, 130


def ended_with(error: errors.GradsmithError) -> int:
    """The exit code for an error of the client."""
    match error:
        case errors.JobFailed():
            return JOB_FAILED
        case errors.Unauthorized() | errors.Forbidden():
            return AUTHENTICATION
        case errors.NotFound():
            return NOT_FOUND
        case errors.ResponseError(code="unknown_family" | "unknown_optimizer"):
            return NOT_FOUND
        case errors.RateLimited() | errors.ServerError() | errors.ConnectionFailed() | errors.InvalidResponse():
            return UNAVAILABLE
        case errors.IntegrityFailed() | errors.WaitTimeout():
            return UNAVAILABLE
        case _:
            return USAGE


@contextmanager
def told(interrupted: Callable[[], str] | None = None) -> Iterator[None]:
    """Turns errors into a message on stderr and an exit code. interrupted: what to say after Ctrl-C."""
    try:
        yield
    except errors.GradsmithError as error:
        refuse(in_words(error), ended_with(error))
    except KeyboardInterrupt:
        refuse(interrupted() if interrupted is not None else "interrupted", INTERRUPTED)
    except BrokenPipeError:  # `gradsmith jobs | head`
        sys.stderr.close()
        raise typer.Exit(0) from None


def in_words(error: errors.GradsmithError) -> str:
    """What went wrong, with commands where the server names requests and options where it names fields."""
    if not isinstance(error, errors.ResponseError):
        return str(error)
    said = as_commands(error.detail)
    for each in error.errors:
        said = said.replace(each.pointer.lstrip("/"), each.pointer.lstrip("/").replace("/", "."))
    # A failure of the server itself is reported to its operator, who asks for the request.
    return f"{said} (request {error.request_id})" if error.status >= 500 and error.request_id else said


def refuse(message: str, code: int = USAGE) -> NoReturn:
    """Say why on stderr, and end."""
    show.say(f"gradsmith: {message}", err=True)
    raise typer.Exit(code)
