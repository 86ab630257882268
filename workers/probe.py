"""What a worker on this machine would have, as JSON: `python -m workers.probe`, for `gradsmith-server doctor`.

It may compile the usual rule's kernel, as a worker's first start does.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from pathlib import Path
from typing import Any

from app.settings import Settings
from models.errors import DatasetCorrupt, DatasetMissing, FamilyBroken
from models.families import KINDS, PROBLEMS
from models.machine import usable_cpus
from models.tasks.data import known

_DRIVER = Path("/proc/driver/nvidia/version")


class _Heard(logging.Handler):
    """Keeps the last warning: why there is no kernel, or not the best one."""

    last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def data_sets(data_dir: Path) -> dict[str, dict[str, Any] | None]:
    """What is wrong with each data set that a kind of family may need; None where nothing is. An alternative is only
    told of where it is."""
    found: dict[str, dict[str, Any] | None] = {}
    for name, one in known().items():
        try:
            one.check(data_dir)
            found[name] = None
        except (DatasetMissing, DatasetCorrupt) as error:
            if one.alternative and isinstance(error, DatasetMissing):
                continue
            damaged = isinstance(error, DatasetCorrupt)
            found[name] = {"message": str(error), "damaged": damaged, "fetched": one.fetch is not None}
    return found


def families(opened: bool) -> dict[str, Any]:
    """The registered kinds and why the tasks of each cannot be imported (None where they can), and the plug-ins that
    could not be loaded. opened: whether tasks are tried, which needs torch."""
    kinds: dict[str, str | None] = dict.fromkeys(KINDS)
    if opened:
        from models.tasks.catalogue import tasks_class

        for kind in KINDS.values():
            try:
                tasks_class(kind)
            except FamilyBroken as error:
                kinds[kind.name] = str(error)
    return {"kinds": kinds, "problems": [vars(problem) for problem in PROBLEMS]}


def computing() -> dict[str, Any]:
    """What computes here: torch; the kernel for the usual LSTM rule, a warning about it, and why rules of other sizes
    have none; GPUs."""
    nothing: dict[str, Any] = {"torch": None, "kernel": "", "kernel_reason": None, "kernel_others": None}
    nothing |= {"gpus": [], "cuda": None}
    if importlib.util.find_spec("torch") is None:
        return nothing
    import torch

    from gradsmith.rules import LSTMRule
    from gradsmith.rules.kernels.native import BuildSettings, check_compiler
    from models.backends import backend_for

    heard = _Heard()
    logging.getLogger("gradsmith.rules.kernels").addHandler(heard)
    kernel = backend_for(LSTMRule(), torch.float32, torch.device("cpu")).name
    compiler = check_compiler(BuildSettings.from_environment())
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    cuda = torch.version.cuda
    return {
        "torch": torch.__version__,
        "kernel": kernel,
        "kernel_reason": heard.last,
        "kernel_others": None if compiler.serves else compiler.found,
        "gpus": gpus,
        "cuda": cuda,
    }


def main() -> int:
    told = computing()
    told |= {
        "families": families(opened=told["torch"] is not None),
        "cpus": usable_cpus(),
        "driver": _DRIVER.exists(),
        "datasets": data_sets(Settings().data_dir),
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
