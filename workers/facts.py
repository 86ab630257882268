"""What the last bits of a result depend on, and where it was made: the facts of the process that computes it."""

from __future__ import annotations

import copy
import platform
import socket
from collections.abc import Mapping
from typing import Any, assert_never, get_args

import torch

from gradsmith.rules import Rules
from models.backends import backend_for, dtype_for, dtype_of
from models.errors import TooLittleMemory
from models.machine import peak_memory_bytes, usable_memory_bytes
from models.memory import Computes, memory_estimate_bytes
from models.runtime import device_of
from models.spec import EvaluateSpec, JobSpec, MetaTrainSpec, PreviewSpec, SweepSpec
from models.threads import calibrated

SAME_BITS = ("torch", "processes", "threads", "instruction_set", "device", "backend")


def machine_facts() -> dict[str, Any]:
    """What is known before the job is: versions, and the machine."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "hostname": socket.gethostname(),
    }


def runtime_facts(rule: Rules | None, spec: JobSpec, most_threads: int) -> dict[str, Any]:
    """`machine_facts`, and what runs the job's `rule`: threads, device and backend. Gives torch so many threads.

    Calibrates them, up to `most_threads`, where the job asks for `auto`; compiles the rule's kernel on this machine's
    first need of it. A job without a rule has nothing to calibrate with: torch computes it, `auto` is one thread.
    Raises DeviceUnavailable and BackendUnavailable.
    """
    resources = spec.resources
    device = device_of(resources)
    if rule is None:
        threads = resources.threads_or(1)
        torch.set_num_threads(threads)
        return _facts(spec, device, threads, "reference" if resources.backend == "reference" else "torch")
    dtype = dtype_for(resources.backend, given=dtype_of(rule))
    rule = copy.deepcopy(rule).to(device, dtype)
    parts = spec.family.tasks.parts()
    name = backend_for(
        *(rule, dtype, device),
        wanted=resources.backend,
        parts=parts,
        mode=spec.meta_gradient,
        products=spec.products,
    ).name
    if resources.threads == "auto":
        threads = calibrated(
            *(rule, dtype, device),
            wanted=resources.backend,
            coordinates=_coordinates(spec),
            most=most_threads,
            parts=parts,
            mode=spec.meta_gradient,
            products=spec.products,
        )
    else:
        threads = resources.threads
        torch.set_num_threads(threads)
    return _facts(spec, device, threads, name, measured=resources.threads == "auto")


def _facts(
    spec: JobSpec, device: torch.device, threads: int, backend: str, *, measured: bool = False
) -> dict[str, Any]:
    return {
        **machine_facts(),
        "processes": spec.resources.processes,
        "threads": threads,
        "threads_calibrated": measured,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "backend": backend,
        "backend_forced": spec.resources.backend != "auto",
        "memory_estimate_bytes": memory_estimate_bytes(spec, computes=_computes(backend), threads=threads),
    }


def card_of(spec: MetaTrainSpec, summary: Mapping[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """The optimizer's record: what it was trained on, what the run came to, and what computed it.

    summary: the training's own. What it says of its runtime joins the worker's facts, which say more: the device's name
        and not its kind.
    """
    training = dict(summary)
    facts = training.pop("runtime") | dict(runtime)
    peak = peak_memory_bytes()
    if peak is not None and spec.resources.processes == 1:  # it ran in this process alone
        facts["memory_peak_bytes"] = peak
    return {
        "family": spec.family.name,
        "tasks": spec.family.tasks.model_dump(mode="json"),
        "overrides": spec.family.overrides,
        "seed": spec.seed,
        "horizon": spec.recipe.horizon,
        "recipe": spec.recipe.model_dump(mode="json"),
        "training": training,
        "runtime": facts,
    }


def refuse_too_large(spec: JobSpec, runtime: Mapping[str, Any], worker_memory_bytes: int | None) -> None:
    """Raises TooLittleMemory when a worker with this much memory (default: this machine's) cannot hold a job that runs
    with these facts. The API refuses such jobs too, but it guesses the backend, and its machine may be another."""
    limit = usable_memory_bytes() if worker_memory_bytes is None else worker_memory_bytes
    needed = runtime["memory_estimate_bytes"]
    if needed > limit:
        *fields, last = spec.to_lower
        raise TooLittleMemory(
            f"out_of_memory: the job needs about {needed / 2**30:,.1f} GiB with the backend {runtime['backend']}, and "
            f"this worker has {limit / 2**30:,.1f} GiB. It was not started. Lower {', '.join(fields)} or {last}, or "
            f"use a larger worker"
            + (" or one with the native kernel, which needs less." if runtime["backend"] == "torch" else ".")
        )


def _computes(backend: str) -> Computes:
    kinds = {each.partition("-")[0] for each in backend.split("+")}  # native-avx2+torch
    return next(name for name in get_args(Computes) if name in kinds)


def _coordinates(spec: JobSpec) -> int:
    """Number of coordinates that one inner step of the job moves."""
    match spec:
        case MetaTrainSpec():
            tasks = spec.recipe.tasks
        case EvaluateSpec():
            tasks = spec.evaluation.test_tasks
        case PreviewSpec():
            tasks = spec.evaluation.tuning_tasks
        case SweepSpec():
            return 0
        case _:
            assert_never(spec)
    return tasks * spec.family.tasks.coordinates_per_task


def same_bits(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a run begun with the facts `one` and resumed with `other` gives the bits of an uninterrupted one."""
    usual = {"processes": 1}  # in checkpoints that are older than the fact
    before, now = usual | dict(one), usual | dict(other)
    return all(before.get(fact) == now.get(fact) for fact in SAME_BITS)
