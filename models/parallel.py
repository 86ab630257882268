"""Meta-training in several processes: each rank owns whole tasks, and all of them take the same meta-steps.

A rank runs `meta_train` from its first line to its last, on its share of the tasks. What it learns of the others is
ONE flat sum a meta-step, the loss and the meta-gradient; a share of each validation; and, at the end of a trajectory, a
hash of what the others hold. Every decision (clipping, skipping, the best rule, a restart) follows from sums that are
the same bits on all ranks, so nothing is ever sent to keep weights equal.

    team = join("cpu")                    # in a process that torchrun has started
    for event in meta_train(spec, team=team): ...

A team never waits for ever: when a rank has died, is frozen or has lost its way, the others get RankLost. A wait is
judged by what the others may be doing meanwhile, so that long meta-steps need no setting.
"""

from __future__ import annotations

import hashlib
import os
import time
from datetime import timedelta
from typing import Literal, Protocol

import torch
from torch import Tensor

from models.errors import DeviceUnavailable, RankLost

PATIENCE_SECONDS = 20.0
"""A rank that waits for the others gives them up after this and SLOWER times what its own part took."""

SLOWER = 4.0
"""A rank's share may be twice another's (two tasks against one), on a core that is half as fast."""

START_SECONDS_PER_RANK = 1.0  # importing torch, many at a time on few cores


class Team(Protocol):
    """The ranks that share a run. `rank` counts from 0; rank 0 is the one that reports."""

    size: int
    rank: int

    def sum_(self, flat: Tensor, expected_seconds: float = 0.0) -> None:
        """Add up `flat` over all ranks, in place: the same bits on each. Every rank must come, with an equal shape.

        expected_seconds: what the longest share since the last sum may take, where it can differ from the caller's own

        Raises RankLost when another does not come.
        """


class Alone:
    """A team of one: there is nothing to wait for, and torch.distributed is never imported."""

    size = 1
    rank = 0

    def sum_(self, flat: Tensor, expected_seconds: float = 0.0) -> None:
        """Nothing to add."""


class Ranks:
    """The processes of a torch.distributed group. `join` makes it."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._left_at = time.monotonic()  # the last sum

    def sum_(self, flat: Tensor, expected_seconds: float = 0.0) -> None:
        import torch.distributed as distributed

        own_seconds = time.monotonic() - self._left_at
        patience_seconds = PATIENCE_SECONDS + SLOWER * max(own_seconds, expected_seconds)
        options = distributed.AllreduceOptions()
        options.timeout = timedelta(seconds=patience_seconds)  # this sum's own; torch's all_reduce has one for all
        try:
            group = distributed.group.WORLD
            assert group is not None, "join made it"
            group.allreduce([flat], options).wait()
        except RuntimeError as error:
            # Gloo and NCCL have no type of their own for a peer that is gone or late.
            raise RankLost(
                f"Rank {self.rank} of {self.size} was left by another: one did not come within "
                f"{patience_seconds:.0f} s, or its connection broke ({_first_line(error)})"
            ) from error
        self._left_at = time.monotonic()


def join(device: Literal["cpu", "gpu"]) -> Ranks:
    """Meet the other ranks, as the environment that torchrun sets says: gloo on the CPU; NCCL on GPUs, each rank on
    one of its own.

    Raises RankLost when they do not come, and DeviceUnavailable when this machine has fewer GPUs than ranks.
    """
    import torch.distributed as distributed

    size, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    if device == "gpu":
        refuse_missing_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", size)))
        torch.cuda.set_device(local)
    patience = timedelta(seconds=PATIENCE_SECONDS + START_SECONDS_PER_RANK * size)
    try:
        distributed.init_process_group("gloo" if device == "cpu" else "nccl", timeout=patience)
        rank = distributed.get_rank()
        team = Ranks(rank, size)
        # NCCL connects at the first sum; and nobody has found out yet whether a rank hears the others.
        team.sum_(torch.zeros(1, device="cpu" if device == "cpu" else "cuda"), START_SECONDS_PER_RANK * size)
    except (RuntimeError, ValueError) as error:
        raise RankLost(
            f"Rank {os.environ.get('RANK')} of {size} could not connect with the others within "
            f"{patience.total_seconds():.0f} s: {_first_line(error)}"
        ) from error
    return team


def refuse_missing_gpus(processes: int) -> None:
    """Raises DeviceUnavailable when this machine has fewer GPUs than processes."""
    found = torch.cuda.device_count()
    if found < processes:
        raise DeviceUnavailable(
            f"The job asks for {processes} processes on GPUs, each with one of its own, and this worker has {found}; "
            f"send resources.processes {max(1, found)} at most."
        )


def mean_over_tasks(team: Team, losses: Tensor, gradient: Tensor, tasks: int) -> tuple[float, Tensor]:
    """The mean loss over steps and all `tasks`, and the meta-gradient of the mean over them, on every rank alike.

    losses: (steps, own tasks); gradient: flat, that of the mean over the own tasks. What is not finite on one rank is
    not finite in the sum. Added up in double, so that in single precision the order hardly ever shows.
    """
    flat = torch.cat([losses.mean(dtype=torch.float64)[None], gradient.double()])
    if team.size > 1:
        flat *= losses.shape[1] / tasks
        team.sum_(flat)
    return float(flat[0]), flat[1:].to(gradient.dtype)


def refuse_drift(team: Team, *held: Tensor) -> None:
    """Raises RankLost when these tensors are not the same bits on all ranks."""
    if team.size == 1:
        return
    digest = hashlib.blake2b(digest_size=6)  # 48 bits, which a double holds exactly
    for tensor in held:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    hashes = torch.zeros(team.size, dtype=torch.float64, device=held[0].device)
    hashes[team.rank] = int.from_bytes(digest.digest(), "little")
    team.sum_(hashes)
    if not bool((hashes == hashes[0]).all()):
        raise RankLost(
            f"The ranks do not hold the same weights any more (hashes {[int(found) for found in hashes.tolist()]}), "
            f"though equal sums went into them: a processor or memory that errs, or unequal machines."
        )


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
