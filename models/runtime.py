"""What a run computes on: the device that its job asks for, and the facts that its last bits depend on."""

from __future__ import annotations

import platform
from typing import Any

import torch

from models.errors import DeviceUnavailable
from models.parallel import refuse_missing_gpus
from models.spec import Resources


def device_of(resources: Resources) -> torch.device:
    """Raises DeviceUnavailable when a GPU is asked for and there is none."""
    if resources.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceUnavailable("The job asks for a GPU and this worker has none; use resources.device = cpu.")
    refuse_missing_gpus(resources.processes)
    return torch.device("cuda")


def runtime(device: torch.device, backend: str, processes: int = 1) -> dict[str, Any]:
    """What a run's last bits depend on, for its record."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "backend": backend,
    }
