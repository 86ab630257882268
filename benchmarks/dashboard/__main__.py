"""`./run bench dashboard`."""

import sys

from benchmarks.dashboard.main import main

if __name__ == "__main__":
    sys.exit(main())
