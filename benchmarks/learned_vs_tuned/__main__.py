"""`python -m benchmarks.learned_vs_tuned`, which `./run bench learned_vs_tuned` runs."""

from __future__ import annotations

import sys

from benchmarks.learned_vs_tuned.main import main

if __name__ == "__main__":
    sys.exit(main())
