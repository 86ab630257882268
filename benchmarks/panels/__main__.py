"""`python -m benchmarks.panels`, which `./run bench panels` runs."""

from __future__ import annotations

import sys

from benchmarks.panels.main import main

if __name__ == "__main__":
    sys.exit(main())
