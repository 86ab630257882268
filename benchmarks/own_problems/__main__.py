"""`python -m benchmarks.own_problems`, which `./run bench own_problems` runs."""

from __future__ import annotations

import sys

from benchmarks.own_problems.main import main

if __name__ == "__main__":
    sys.exit(main())
