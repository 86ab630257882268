"""`python -m benchmarks.reproduce`, which `./run reproduce` runs."""

from __future__ import annotations

import sys

from benchmarks.reproduce.main import main

if __name__ == "__main__":
    sys.exit(main())
