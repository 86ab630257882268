"""`./run bench core`: the training core against its peers and against the machine; with `--cuda` on a GPU. See
benchmarks/core/."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the folder above: this script's own name is also its package's
    on_gpu = sys.argv[1:] == ["--cuda"]
    sys.exit(importlib.import_module(f"benchmarks.core.{'cuda' if on_gpu else 'main'}").main())
