"""docs/paper/README.md: stub to start."""

from pathlib import Path

from benchmarks.core.environment import ROOT
from benchmarks.reproduce import results

FOLDER = ROOT / "docs" / "paper"


def write(found: Path = results.FOLDER, folder: Path = FOLDER) -> None:
    print("page")
