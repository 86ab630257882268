"""From a job's id to its result: claim it, have its kind run, and end it whatever comes.

The science is a generator (`models.meta_train`, `models.evaluation`) that knows nothing of this; between two of its
events a cancel, a preemption and a lost lease are noticed.
"""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import closing

import torch

from app.settings import Settings
from app.store.errors import DamagedData, DatabaseUnavailable, LeaseLost, OptimizerNotFound
from app.store.leases import Lease
from app.store.sessions import Database
from app.streams import Publisher
from gradsmith.errors import GradsmithError
from gradsmith.rules import LSTMRule
from models.backends import backend_for
from models.errors import BlobsUnavailable, ModelsError, RankLost
from workers import kinds
from workers.attempt import Attempt
from workers.facts import machine_facts
from workers.lifecycle import Cancelled, Keeper, Preempted, claim, leave, new_owner
from workers.recorder import Recorder

logger = logging.getLogger("gradsmith.worker")


def warm_up() -> None:
    """Touch what is slow at its first use, so that a spare has it behind it."""
    torch.set_num_threads(1)
    torch.nn.functional.linear(torch.ones(1, 2), torch.ones(2, 2)).tanh()
    # Compiles the usual rule's kernel on this machine's first start, and loads it on every other.
    backend_for(LSTMRule(), torch.float32, torch.device("cpu"))


def run_job(
    job_id: str,
    attempt: int,
    *,
    owner: str | None = None,
    preempted: Callable[[], bool] = lambda: False,
    settings: Settings | None = None,
    on_lost: Callable[[Lease], None] = leave,
    on_renewed: Callable[[], None] = lambda: None,
) -> None:
    """Run one attempt of a job to its end; what became of it is in the database.

    Returns at once when the attempt is not to be had (a doorbell that rang twice, a job cancelled meanwhile), and
    when the lease is lost on the way. `owner` names this process in the lease, and nobody else. `preempted()` turns
    true when this process should stop. `on_renewed` is called, in another thread, whenever the lease has been renewed.
    """
    settings = settings or Settings()
    database = Database(settings.resolved_database_url)
    lease = Lease(job_id, attempt, owner or new_owner(socket.gethostname()))
    try:
        claimed_at = time.monotonic()
        claimed = claim(database, settings, lease, machine_facts())
        if claimed is None:
            return
        with (
            closing(Publisher(settings, job_id)) as publisher,
            Keeper(database, settings, lease, claimed_at, on_lost, on_renewed=on_renewed) as keeper,
        ):
            recorder = Recorder(keeper, publisher, settings, claimed)
            _run(Attempt(settings, claimed, keeper, recorder, preempted))
    except LeaseLost as error:
        logger.warning("%s", error)
    finally:
        database.close()


def _run(attempt: Attempt) -> None:
    """Raises LeaseLost, and what the database raises when it is away for longer than the lease."""
    lease, spec = attempt.keeper.lease, attempt.claimed.spec
    try:
        if isinstance(spec, ModelsError):
            raise spec
        kinds.run(attempt, spec)
    except Cancelled:
        attempt.cancel()
    except Preempted:
        attempt.hand_back()
    except RankLost as error:
        if attempt.preempted():  # a SIGTERM to all of a container's processes reaches the ranks too
            attempt.hand_back()
        else:
            attempt.retry(f"worker_lost: {error}")
    except BlobsUnavailable as error:
        attempt.retry(str(error))
    except (LeaseLost, DatabaseUnavailable):
        raise  # nothing can be written any more
    except (ModelsError, GradsmithError, OptimizerNotFound, DamagedData) as error:
        attempt.fail(str(error))
    except (MemoryError, torch.OutOfMemoryError) as error:
        attempt.fail(f"out_of_memory: {error}; use fewer tasks, a shorter unroll_steps or a larger worker")
    except Exception as error:
        logger.exception("job %s attempt %d failed", lease.job_id, lease.attempt)
        attempt.recorder.say("log", {"level": "error", "message": traceback.format_exc()})
        attempt.fail(f"internal_error: {type(error).__name__}: {error}")
