"""The C++ compiler of this machine. Tests of the native kernel are skipped where there is none, and nowhere else."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

from gradsmith.rules.kernels.native.build import COMPILERS

COMPILER = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "", *COMPILERS))), None)

UNOPTIMIZED = f"""#!/bin/sh
case $1 in --version) exec '{COMPILER}' --version ;; *) exec '{COMPILER}' "$@" -O0 ;; esac
"""
"""A compiler that needs a third of the time, for tests of the way to a kernel and not of its speed or bits."""

_NONE = "there is no C++ compiler here: c++, g++ or clang++"

compiled = pytest.mark.skipif(COMPILER is None, reason=_NONE)


def no_kernel(reason: object) -> NoReturn:
    """Skip the test that asked for a kernel, or fail it where the machine has a compiler.

    reason: why there is no kernel, for the failure
    """
    if COMPILER is None:
        pytest.skip(_NONE)
    pytest.fail(f"{COMPILER} is here and the native kernel is not: {reason}")
