"""`./run bench terminal`."""

import sys

from benchmarks.terminal.main import main

if __name__ == "__main__":
    sys.exit(main())
