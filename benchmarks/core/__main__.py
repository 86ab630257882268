"""`python -m benchmarks.core`, which `./run bench core` runs; `--cuda` alone measures on a GPU."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:] == ["--cuda"]:
        from benchmarks.core.cuda import main
    else:
        from benchmarks.core.main import main
    sys.exit(main())
