"""What the last bits of a result depend on, and where it was made: the facts of the process that computes it."""

from __future__ import annotations

import copy
import platform
import socket
from collections.abc import Mapping
from typing import Any

import torch

from gradsmith.rules import Rule
from models.backends import backend_for, dtype_for
from models.meta_train import device_of
from models.spec import EvaluateSpec, MetaTrainSpec
from models.threads import calibrated

SAME_BITS = ("torch", "threads", "instruction_set", "device", "backend")


def machine_facts() -> dict[str, Any]:
    """What is known before the job is: versions, and the machine."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "hostname": socket.gethostname(),
    }


def runtime_facts(rule: Rule, spec: MetaTrainSpec | EvaluateSpec, most_threads: int) -> dict[str, Any]:
    """`machine_facts`, and what runs `rule`, the job's: threads, device and backend. torch has that many threads then.

    Calibrates them, up to `most_threads`, where the job asks for `auto`; compiles the rule's kernel on this machine's
    first need of it. Raises DeviceUnavailable and BackendUnavailable.
    """
    resources = spec.resources
    device = device_of(resources)
    dtype = dtype_for(resources.backend, given=next(rule.parameters()).dtype)
    rule = copy.deepcopy(rule).to(device, dtype)
    name = backend_for(rule, dtype, device, wanted=resources.backend).name
    if resources.threads == "auto":
        threads = calibrated(
            *(rule, dtype, device), wanted=resources.backend, coordinates=_coordinates(spec), most=most_threads
        )
    else:
        threads = resources.threads
        torch.set_num_threads(threads)
    return {
        **machine_facts(),
        "threads": threads,
        "threads_calibrated": resources.threads == "auto",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "backend": name,
        "backend_forced": resources.backend != "auto",
    }


def _coordinates(spec: MetaTrainSpec | EvaluateSpec) -> int:
    """That one inner step of the job moves."""
    tasks = spec.recipe.tasks if isinstance(spec, MetaTrainSpec) else spec.evaluation.test_tasks
    return tasks * spec.family.tasks.coordinates_per_task


def same_bits(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a run begun with the facts `one` and resumed with `other` gives the bits of an uninterrupted one."""
    return all(one.get(fact) == other.get(fact) for fact in SAME_BITS)
