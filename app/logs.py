"""How every process of ours logs: one line for each event, JSON for machines and columns for people.

Modules log through `logging` as ever; structlog renders what they say, uvicorn's lines included, and adds what is
bound where it was said: `request_id` in the API, `job_id`, `attempt` and `worker` in a worker. Secrets are taken out of
the finished line, tracebacks included, so that nobody has to remember them.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, reset_contextvars

__all__ = ["LogFormat", "bind_contextvars", "bound_contextvars", "configure", "reset_contextvars", "scrub"]

LogFormat = Literal["auto", "json", "text"]

_HIDDEN = "***"
_SECRETS = (
    # scheme://user:password@host and scheme://:password@host
    (re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@\"'\\]*:)[^\s/\"'\\]+(?=@)", re.I), rf"\1{_HIDDEN}"),
    # a password as libpq and as query strings write it
    (re.compile(r"""((?:password|passwd)["']?\s*[=:]\s*)(?:'[^']*'|"[^"]*"|[^\s&,;"'\\]+)""", re.I), rf"\1{_HIDDEN}"),
    # whatever stands before it: in a quoted path that is the last digit of %40
    (re.compile(r"(gs_[A-Za-z0-9]+_)[A-Za-z0-9_-]+"), rf"\1{_HIDDEN}"),
    (re.compile(r"(Bearer(?:\s|%20|\+)+)[^\s\"',\\]+", re.I), rf"\1{_HIDDEN}"),
)
_JOB_ID = re.compile(r"\bjob_[0-9a-f]{32}\b")
# One line each time somebody asks what we ask: of no use to an operator.
_QUIET = ("httpx", "httpcore", "rq.worker", "alembic", "asyncio")


def configure(log_format: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Have this process log to `stream` (default: standard error). `auto` is text on a terminal and JSON elsewhere.

    May be called again: the last call counts.
    """
    out = sys.stderr if stream is None else stream
    text = log_format == "text" or (log_format == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(text=text, colors=text and out.isatty()))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        theirs = logging.getLogger(name)
        theirs.handlers, theirs.propagate = [], True
    logging.captureWarnings(True)


def scrub(line: str) -> str:
    """`line` without passwords in URLs, API keys and bearer tokens."""
    for pattern, replacement in _SECRETS:
        line = pattern.sub(replacement, line)
    return line


def _formatter(*, text: bool, colors: bool) -> logging.Formatter:
    render: Any
    if text:
        render = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        clock = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        last: list[Any] = [render]
    else:
        clock = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
        last = [structlog.processors.format_exc_info, _in_order, structlog.processors.JSONRenderer(ensure_ascii=True)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=_EXTRA),
            _note_job,
            *([] if text else [_note_process]),
            clock,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, _scrubbed],
        use_get_message=True,
    )


# What `extra=` may add; uvicorn's own extras repeat the message with colours.
_EXTRA = ("method", "route", "status", "milliseconds", "job_id", "attempt", "worker", "api_key")


def _note_job(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The job that the sentence names, where none is bound: so the dispatcher's lines can be found too."""
    if "job_id" not in event and (found := _JOB_ID.search(str(event.get("event", "")))):
        event["job_id"] = found.group()
    return event


def _note_process(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["pid"] = os.getpid()  # several processes share a file
    return event


def _in_order(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What every line has comes first, so that people can read JSON too."""
    first = {name: event.pop(name) for name in ("time", "level", "event") if name in event}
    return {**first, **event}


def _scrubbed(_logger: Any, _name: str, line: Any) -> str:
    return scrub(str(line))
