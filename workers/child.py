"""A child of a worker: imports the science, waits on its pipe for one job, runs it, ends.

Started by exec as `python -m workers.child --parent PID`. It holds no job until the pipe names one, and none after.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from types import FrameType

from app.host.tether import die_with_parent

logger = logging.getLogger("gradsmith.worker")


def main(arguments: list[str]) -> int:
    die_with_parent(int(arguments[arguments.index("--parent") + 1]))  # before anything that takes time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    working = False

    def stop(_signum: int, _frame: FrameType | None) -> None:
        if not working:
            os._exit(0)  # a spare has nothing to hand back
        # Not preempted.set(): a handler must not wait for a lock that the code it interrupted may hold.
        preempting.append(True)

    preempting: list[bool] = []
    signal.signal(signal.SIGTERM, stop)
    from app import logs
    from app.settings import Settings

    settings = Settings()
    logs.configure(settings.log_format, settings.log_level)

    from workers import run  # torch and the science: the seconds that a spare saves

    run.warm_up()
    logger.info("process %d is ready for a job", os.getpid())
    line = sys.stdin.buffer.readline()
    if not line:
        return 0  # the parent closed the pipe: no job will come
    working = True
    threading.Thread(target=_leave_with_pipe, name="pipe-watch", daemon=True).start()
    order = json.loads(line)
    worker = order["owner"].rpartition(":")[0]
    logs.bind_contextvars(job_id=order["job"], attempt=order["attempt"], worker=worker)  # it runs no other
    run.run_job(order["job"], order["attempt"], owner=order["owner"], preempted=lambda: bool(preempting))
    return 0


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
