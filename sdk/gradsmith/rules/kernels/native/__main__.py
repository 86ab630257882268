"""Kernels compiled beforehand, for an image or a machine without a compiler:

    python -m gradsmith.rules.kernels.native FOLDER --rule 2x20:log_sign --rule 2x20:raw

compiles for every instruction set of this kind of machine. Set GRADSMITH_KERNELS=FOLDER where they are to be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gradsmith.rules.kernels.native.build import BuildFailed, BuildSettings, prebuild
from gradsmith.rules.kernels.native.targets import TARGETS
from gradsmith.rules.kernels.sizes import INPUTS, Sizes


def _rule(text: str) -> Sizes:
    try:
        shape, _, kind = text.partition(":")
        layers, hidden = map(int, shape.split("x"))
        return Sizes(hidden, layers, INPUTS[kind])
    except (ValueError, KeyError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not LAYERSxHIDDEN:INPUT, for example 2x20:log_sign") from error


def main(arguments: list[str] | None = None) -> int:
    """Compile kernels for every instruction set of this kind of machine into a folder."""
    parser = argparse.ArgumentParser(prog="python -m gradsmith.rules.kernels.native", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rule", type=_rule, action="append", help="LAYERSxHIDDEN:INPUT; default: 2x20, both inputs")
    names = [target.name for target in TARGETS]
    parser.add_argument("--instructions", choices=names, action="append", help="default: all of this kind of machine")
    given = parser.parse_args(arguments)
    try:
        rules = given.rule or [Sizes(20, 2, 2), Sizes(20, 2, 1)]
        for path in prebuild(given.folder, rules, BuildSettings.from_environment(), given.instructions or ()):
            print(path)
    except (BuildFailed, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
