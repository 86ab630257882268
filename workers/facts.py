"""What the last bits of a result depend on, and where it was made: the facts of the process that computes it."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping
from typing import Any

import torch

from gradsmith.rules import Rule
from models.backends import backend_for
from models.meta_train import device_of
from models.spec import Resources

SAME_BITS = ("torch", "threads", "instruction_set", "device", "backend")


def machine_facts() -> dict[str, Any]:
    """What is known before the job is: versions, and the machine."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "hostname": socket.gethostname(),
    }


def runtime_facts(rule: Rule, resources: Resources) -> dict[str, Any]:
    """`machine_facts`, and what runs `rule` with these resources: the threads, the device and the backend.

    Compiles the rule's kernel on this machine's first need of it. Raises DeviceUnavailable.
    """
    device = device_of(resources)
    dtype = next(rule.parameters()).dtype
    return {
        **machine_facts(),
        "threads": resources.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "backend": backend_for(rule, dtype, device, resources.threads).name,
    }


def same_bits(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a run begun with the facts `one` and resumed with `other` gives the bits of an uninterrupted one."""
    return all(one.get(fact) == other.get(fact) for fact in SAME_BITS)
