"""`python -m benchmarks.service`, which `./run bench service` runs."""

from __future__ import annotations

import sys

from benchmarks.service.main import main

if __name__ == "__main__":
    sys.exit(main())
