"""Kernels compiled beforehand, for an image or a machine without a compiler:

    python -m gradsmith.rules.kernels.native FOLDER --rule 2x20:log_sign --rule 2x20:raw

compiles for every instruction set of this kind of machine. Set GRADSMITH_KERNELS=FOLDER where they are to be used.

    python -m gradsmith.rules.kernels.native --check

compiles nothing and looks at the folder as whoever will use it: each kernel is there, loads, and runs where this CPU
can run it. Unless --rule names all that is wanted, it also asks for a compiler, which rules of other sizes need.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from gradsmith.rules.kernels.native.build import BuildFailed, BuildSettings, prebuild
from gradsmith.rules.kernels.native.check import check
from gradsmith.rules.kernels.native.choose import AnyProgram
from gradsmith.rules.kernels.native.targets import targets_of
from gradsmith.rules.kernels.sizes import INPUTS, USUAL, Sizes


def _rule(text: str) -> AnyProgram:
    named: dict[str, AnyProgram] = {program.source.removesuffix(".cpp"): program for program in USUAL[:2]}
    if text in named:
        return named[text]
    try:
        shape, kind, *products = text.split(":")
        layers, hidden = map(int, shape.split("x"))
        if products not in ([], ["bfloat16"]):
            raise ValueError(products)
        return Sizes(hidden, layers, INPUTS[kind], bfloat16=bool(products))
    except (ValueError, KeyError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither hyper nor mlp nor LAYERSxHIDDEN:INPUT, for example 2x20:log_sign, or "
            f"2x20:log_sign:bfloat16 for products in bfloat16"
        ) from error


def _check(rules: list[AnyProgram], settings: BuildSettings, instructions: list[str], *, others: bool) -> int:
    """0 when everything serves. Prints a line for each thing that was looked at."""
    serves = True
    for one in check(rules, settings, instructions, others=others):
        print(f"{'ok  ' if one.serves else 'fail'}  {one.what}: {one.found}")
        serves = serves and one.serves
    return 0 if serves else 1


def main(arguments: list[str] | None = None) -> int:
    """Compile kernels for every instruction set of this kind of machine into a folder."""
    parser = argparse.ArgumentParser(prog="python -m gradsmith.rules.kernels.native", description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="default: GRADSMITH_KERNELS")
    parser.add_argument(
        "--rule",
        type=_rule,
        action="append",
        help="hyper, mlp, or an LSTM's LAYERSxHIDDEN:INPUT; default: hyper, mlp and 2x20 with both inputs",
    )
    names = [target.name for target in targets_of(None, bfloat16=True)]
    parser.add_argument("--instructions", choices=names, action="append", help="default: all of this kind of machine")
    parser.add_argument("--check", action="store_true", help="compile nothing; fail unless all of them serve")
    given = parser.parse_args(arguments)
    rules = given.rule or list(USUAL)
    try:
        settings = BuildSettings.from_environment()
        folder = given.folder or settings.prebuilt
        if folder is None:
            raise ValueError("no folder is named: name FOLDER, or set GRADSMITH_KERNELS")
        if given.check:
            wanted = given.instructions or []
            return _check(rules, replace(settings, prebuilt=folder), wanted, others=given.rule is None)
        for path in prebuild(folder, rules, settings, given.instructions or ()):
            print(path)
    except (BuildFailed, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
