"""The command `gradsmith-server families check NAME`: does a family keep what every family promises?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from models.families import FAMILIES, KINDS, problems_in_words
from models.task_spec import TaskSpec
from models.tasks.conformance import Subject, conformance


def spec_named(name: str) -> TaskSpec | None:
    """The tasks of a family, or those of a kind with all its defaults."""
    if name in FAMILIES:
        return FAMILIES[name].tasks
    return KINDS[name].spec.model_validate({}) if name in KINDS else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where every promise is kept, 1 where one is broken, 2 where there is no such family."""
    parser = argparse.ArgumentParser(
        prog="gradsmith-server families check", description="Check what every family promises, such as its gradient."
    )
    parser.add_argument("name", help="a family of GET /families, or a kind, which is checked with its defaults")
    parser.add_argument("--data", type=Path, default=os.environ.get("GRADSMITH_DATA_DIR"), help="the data folder")
    options = parser.parse_args(arguments)
    spec = spec_named(options.name)
    if spec is None:
        known = ", ".join((*FAMILIES, *KINDS))
        print(
            f"There is no family or kind {options.name!r}; there are {known}.{problems_in_words()}",
            file=sys.stderr,
        )
        return 2
    broken = 0
    for name, wrong in conformance(Subject(spec, options.data)):
        broken += wrong is not None
        print(f"{'ok' if wrong is None else 'fail':<5} {name:<9} {wrong or ''}".rstrip(), flush=True)
    print(
        f"{options.name} keeps every promise." if not broken else f"{broken} to mend; docs/extending.md explains each."
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
