"""`./run bench learned_vs_tuned`: learned against tuned, every seed. See benchmarks/learned_vs_tuned/."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the folder above: this script's own name is also its package's
    sys.exit(importlib.import_module("benchmarks.learned_vs_tuned.main").main())
