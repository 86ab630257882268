"""A child of a worker: imports the science, waits on its pipe for one job, runs it, ends.

Started by exec as `python -m workers.child --parent PID --report DESCRIPTOR`. It holds no job until the pipe names one,
and none after. Until then it answers pings; `workers.report` says what it tells its worker.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from types import FrameType, ModuleType
from typing import Any

from app.host.tether import die_with_parent
from workers.report import Report

logger = logging.getLogger("gradsmith.worker")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.child")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--report", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)  # before anything that takes time
    report = Report(options.report)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    working = False

    def stop(_signum: int, _frame: FrameType | None) -> None:
        if not working:
            os._exit(0)  # a spare has nothing to hand back
        # Not preempted.set(): a handler must not wait for a lock that the code it interrupted may hold.
        preempting.append(True)

    preempting: list[bool] = []
    signal.signal(signal.SIGTERM, stop)
    try:
        run = _warm()
    except Exception as error:
        report.say("error", f"{type(error).__name__}: {error}")
        raise
    report.say("ready")  # before the log: whoever reads there that it is ready may rely on the worker knowing it
    logger.info("process %d is ready for a job", os.getpid())
    order = _wait_for_order(report)
    if order is None:
        return 0  # the parent closed the pipe: no job will come
    working = True
    report.say("begun")
    threading.Thread(target=_leave_with_pipe, name="pipe-watch", daemon=True).start()

    from app import logs

    worker = order["owner"].rpartition(":")[0]
    logs.bind_contextvars(job_id=order["job"], attempt=order["attempt"], worker=worker)  # it runs no other
    run.run_job(
        order["job"],
        order["attempt"],
        owner=order["owner"],
        preempted=lambda: bool(preempting),
        on_renewed=lambda: report.say("renewed"),
    )
    return 0


def _warm() -> ModuleType:
    """`workers.run`, with torch and the science: the seconds that a spare saves."""
    from app import logs
    from app.settings import Settings

    settings = Settings()
    logs.configure(settings.log_format, settings.log_level)

    from workers import run

    run.warm_up()
    return run


def _wait_for_order(report: Report) -> dict[str, Any] | None:
    """The job to run; None when none will come."""
    while line := sys.stdin.buffer.readline():
        if line != b"ping\n":
            return dict(json.loads(line))
        report.say("pong")
    return None


def _leave_with_pipe() -> None:
    """The parent never writes again, so whatever comes is the end of the pipe, and of the parent."""
    os.read(sys.stdin.fileno(), 1)  # not through the buffer: its lock would be held when the interpreter ends
    os._exit(1)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    logging.shutdown()
    # Without the interpreter's long goodbye, in which signals have their default effect again: the job is done, and
    # a SIGTERM that comes now must not look like a worker that was lost.
    os._exit(status)
