"""Kernels compiled beforehand, for an image or a machine without a compiler:

    python -m gradsmith.rules.kernels.native FOLDER --rule 2x20:log_sign --rule 2x20:raw

compiles for every instruction set of this kind of machine. Set GRADSMITH_KERNELS=FOLDER where they are to be used.
With --check nothing is compiled: whoever will use the folder sees whether this CPU's best kernel of it runs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native.build import BuildFailed, BuildSettings, prebuild
from gradsmith.rules.kernels.native.choose import native_kernel
from gradsmith.rules.kernels.native.targets import TARGETS
from gradsmith.rules.kernels.sizes import INPUTS, Sizes
from gradsmith.rules.lstm import LSTMRule


def _rule(text: str) -> Sizes:
    try:
        shape, _, kind = text.partition(":")
        layers, hidden = map(int, shape.split("x"))
        return Sizes(hidden, layers, INPUTS[kind])
    except (ValueError, KeyError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not LAYERSxHIDDEN:INPUT, for example 2x20:log_sign") from error


def _check(folder: Path, rules: list[Sizes]) -> int:
    """0 when the folder has a kernel of each of these sizes that runs here and computes what the rule says."""
    given = BuildSettings.from_environment()
    kinds = {features: name for name, features in INPUTS.items()}
    logging.basicConfig(format="%(message)s")
    for sizes in rules:
        rule = LSTMRule(LSTMConfig(hidden_size=sizes.hidden, layers=sizes.layers, input=kinds[sizes.inputs]))
        settings = replace(given, cache=folder / "nothing", prebuilt=folder, compiler="--check")
        kernel = native_kernel(rule, settings=settings)
        if isinstance(kernel, Refusal):
            return 1
        print(f"{kernel.target.name}: {sizes}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Compile kernels for every instruction set of this kind of machine into a folder."""
    parser = argparse.ArgumentParser(prog="python -m gradsmith.rules.kernels.native", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rule", type=_rule, action="append", help="LAYERSxHIDDEN:INPUT; default: 2x20, both inputs")
    names = [target.name for target in TARGETS]
    parser.add_argument("--instructions", choices=names, action="append", help="default: all of this kind of machine")
    parser.add_argument("--check", action="store_true", help="compile nothing; fail unless a kernel of FOLDER runs")
    given = parser.parse_args(arguments)
    rules = given.rule or [Sizes(20, 2, 2), Sizes(20, 2, 1)]
    if given.check:
        return _check(given.folder, rules)
    try:
        for path in prebuild(given.folder, rules, BuildSettings.from_environment(), given.instructions or ()):
            print(path)
    except (BuildFailed, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
