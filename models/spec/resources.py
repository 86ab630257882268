"""What a job runs on, and how processes share what it holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from models.task_spec import Spec

BackendName = Literal["auto", "native", "torch", "triton", "reference"]
DEVICE_OF: dict[BackendName, Literal["cpu", "gpu"]] = {"native": "cpu", "triton": "gpu"}  # the others run on any
MOST_THREADS = 256
MOST_PROCESSES = 64


def _count_or_auto(threads: object) -> object:
    """One error for what is neither, where a union of types would give one for each of them."""
    if threads == "auto" or (type(threads) is int and 1 <= threads <= MOST_THREADS):
        return threads
    raise ValueError(f'{threads!r} is no number of threads; send a whole number from 1 to {MOST_THREADS}, or "auto"')


Threads = Annotated[Annotated[int, Field(ge=1, le=MOST_THREADS)] | Literal["auto"], BeforeValidator(_count_or_auto)]


class Resources(Spec):
    """What a job runs on. The record of its run (`runtime`) says what it was given."""

    device: Literal["cpu", "gpu"] = "cpu"
    threads: Threads = Field(
        1,
        description="CPU threads; auto: as many as the worker finds the fastest when the job starts, up to its CPUs.",
    )
    processes: int = Field(
        1,
        ge=1,
        le=MOST_PROCESSES,
        description="Processes that share the tasks of a meta_train job, each with this many threads, or a GPU of its "
        "own; at most one for each task.",
    )
    backend: BackendName = Field(
        "auto",
        description="What computes: native (compiled, CPU, float32), torch, triton (GPU), or reference (plain "
        "autograd, the whole job in float64). auto: the fastest that the worker has for the rule.",
    )

    def threads_or(self, calibrated: int) -> int:
        """The number of threads that is asked for, or `calibrated` where it is auto."""
        return calibrated if self.threads == "auto" else self.threads

    @model_validator(mode="after")
    def _the_backend_runs_on_the_device(self) -> Resources:
        needed = DEVICE_OF.get(self.backend, self.device)
        if needed != self.device:
            raise ValueError(
                f"backend {self.backend} runs on device {needed}, not on {self.device}; "
                f"send device {needed}, or backend auto"
            )
        return self


def share(count: int, processes: int, process: int) -> range:
    """What one of `processes` owns of `count` things in a row: all shares are whole and differ by one at most, the
    longer ones first."""
    least, longer = divmod(count, processes)
    first = process * least + min(process, longer)
    return range(first, first + least + (process < longer))
