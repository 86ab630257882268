"""An optimizer's steps in one fresh process for each setting; torch is imported once, before they fork.

`steps_in_forks.py RULE` reads a JSON list of settings and prints a JSON list: the parameter's bytes after three steps,
in hexadecimal, or the traceback.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import traceback
from typing import Any

import torch

from gradsmith import LearnedOptimizer


def steps(path: str, dtype: str, device: str, when: str) -> bytes:
    """when: whether torch's defaults change `before` or `after` the optimizer is made."""

    def set_defaults() -> None:
        torch.set_default_dtype(getattr(torch, dtype))
        torch.set_default_device(device)

    if when == "before":
        set_defaults()
    parameter = torch.nn.Parameter(torch.zeros(100, dtype=torch.float32, device="cpu"))
    optimizer = LearnedOptimizer([parameter], path)
    if when == "after":
        set_defaults()
    for step in range(3):
        parameter.grad = torch.linspace(-1, 1, 100, dtype=torch.float32, device="cpu") * (step + 1)
        optimizer.step()
    assert all(t.dtype == torch.float32 and t.device.type == "cpu" for t in optimizer.state[parameter]["memory"])
    return parameter.detach().numpy().tobytes()


def refuse(*_args: object, **_kwargs: object) -> pathlib.Path:
    raise RuntimeError("Could not determine home directory.")


def in_fork(path: str, setting: dict[str, Any]) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(setting["environment"])
        if setting.get("home") == "none":
            pathlib.Path.home = refuse  # type: ignore[method-assign,assignment]
        try:
            said = steps(path, setting["dtype"], setting["device"], setting["when"]).hex()
        except BaseException:  # noqa: BLE001  (told by the test)
            said = traceback.format_exc()
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


if __name__ == "__main__":
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]).step()  # imports what an optimizer's first step imports
    print(json.dumps([in_fork(sys.argv[1], setting) for setting in json.load(sys.stdin)]))
