"""One rank of a job that asks for several processes: `torchrun ... -m workers.rank`, started by `workers.ranks`.

It connects with the process that holds the job before it imports anything that takes time, gets its order there, and
reports there: events (rank 0 alone), how it ended, or why it could not go on. It needs no store and is given none. It
dies with torchrun, by the kernel's death signal, and with the process that holds the job, by the end of the connection.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from app.host.tether import die_with_parent

ADDRESS = "GRADSMITH_RANKS"  # the variable that names the socket

# Trajectories of small jobs end many times a second, and each end is sent with its checkpoint.
TRAJECTORY_END_INTERVAL_SECONDS = 0.25


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Client(os.environ[ADDRESS], "AF_UNIX")
    connection.send((int(os.environ["RANK"]), os.getpid()))
    order: dict[str, Any] = connection.recv()
    die_with_parent(order["torchrun"])
    threading.Thread(target=_leave_with, args=(connection,), name="launcher-watch", daemon=True).start()
    connection.send(_run(order, connection))
    # Not an exit, which torchrun would answer by ending the others: whoever reads the report decides that.
    threading.Event().wait()


def _run(order: dict[str, Any], connection: Connection) -> Any:
    """Run to the end; the last word: None, or what went wrong."""
    import torch  # what takes seconds begins here

    from models.errors import ModelsError
    from models.meta_train import TrajectoryEnd, meta_train
    from models.parallel import join
    from models.spec import MetaTrainSpec

    try:
        spec = MetaTrainSpec.model_validate_json(order["spec"])
        torch.set_num_threads(order["threads"])
        team = join(spec.resources.device)
        data_dir = order["data_dir"] and Path(order["data_dir"])
        offered = time.monotonic()
        for happened in meta_train(
            spec, data_dir=data_dir, resume=order["resume"], threads=order["threads"], team=team
        ):
            if team.rank != 0:
                continue
            if not isinstance(happened, TrajectoryEnd):
                connection.send(happened)
            elif time.monotonic() - offered >= TRAJECTORY_END_INTERVAL_SECONDS:
                connection.send((happened.step, happened.checkpoint()))
                offered = time.monotonic()
    except ModelsError as error:
        return error
    except (MemoryError, torch.OutOfMemoryError) as error:
        return MemoryError(str(error))
    except Exception as error:  # noqa: BLE001  (a bug: whoever holds the job reports it, with this trace)
        trace = traceback.format_exc()
        reported = RuntimeError(f"rank {os.environ['RANK']}: {type(error).__name__}: {error}")
        reported.add_note(trace)
        return reported
    return None


def _leave_with(connection: Connection) -> None:
    """Nothing more is ever sent to us, so whatever comes is the end of the connection, and of the job's holder."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(1)


if __name__ == "__main__":
    main()
