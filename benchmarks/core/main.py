"""The command line: which sections are measured, and what becomes of them."""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import time
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.core import accuracy, bf16, machine, picture, reference, report
from benchmarks.core.environment import ROOT, PeersUnavailable, peers_python
from benchmarks.core.fleet import Bench, cpu_count
from benchmarks.core.kept import Kept
from benchmarks.core.problem import EXACT
from benchmarks.core.report import bf16 as report_bf16
from benchmarks.core.report import exact
from benchmarks.core.results import is_right, worst_of
from benchmarks.core.sections import Plan, sections

FOLDER = ROOT / "var" / "bench"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PICTURE = ROOT / "docs" / "images" / "core.png"


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 when a section failed or a peer or backend gives a wrong meta-gradient."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.cuda:
        parser.error("--cuda goes with no other option")
    plan = _plan(options)
    if not plan.threads:
        parser.error(f"--threads {' '.join(map(str, options.threads))}: this process has {cpu_count()} CPUs")
    chosen = sections(plan)
    if options.only is not None:
        unknown = [wanted for wanted in options.only if not _meant(wanted, chosen)]
        if unknown or not options.only:
            parser.error(f"--only {' '.join(unknown)}: no section's name begins so; there are {_names(plan)}")
        meant = {name for wanted in options.only for name in _meant(wanted, chosen)}
        chosen = {name: section for name, section in chosen.items() if name in meant}
    # So that SIGTERM, too, ends the processes and folders that a section has made.
    signal.signal(signal.SIGTERM, lambda signum, _frame: sys.exit(128 + signum))
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    needs_peers = plan.peers and any(name.startswith(("compare/", "exact/")) for name in chosen)
    bench = Bench(FOLDER, _peers() if needs_peers else None)
    form = "quick" if options.quick else "only" if options.only else "full"
    settings = f"rounds {plan.rounds}, threads {' '.join(map(str, plan.threads))}, {'' if plan.peers else 'no '}peers"
    kept = Kept(FOLDER / f"core-{form}.json", machine.described() | {"settings": settings}, go_on=options.resume)
    for name, section in chosen.items():
        print(f"  {name} ({time.perf_counter() - started:.0f} s so far)", flush=True)
        kept.measure(name, partial(section, bench))
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    lines = report.lines(kept.results, kept.failed, _command(options), date)
    apart = [
        ("second derivatives", [f"exact/{problem.slug}" for problem in EXACT], exact.lines, exact.MARKS),
        ("products in bfloat16", ["bf16"], report_bf16.lines, report_bf16.MARKS),
    ]
    sections_apart = {what: own(kept.results, _command(options), date) for what, _, own, _ in apart}
    print("\n" + "\n".join([*lines, *chain(*sections_apart.values())]))
    print(f"\n{time.perf_counter() - started:.0f} s")
    wrong = _wrong(kept.results)
    # RESULTS.md has the sections of the default run, and no other; some may be run alone.
    usual = plan == _plan(parser.parse_args([]))
    if usual and wrong:
        print(f"not written, something is wrong: {RESULTS.relative_to(ROOT)}")
    for what, needed, _, marks in apart:
        if usual and not wrong and all(name in kept.results for name in needed):
            report.write(RESULTS, sections_apart[what], marks)
            print(f"written, {what}: {RESULTS.relative_to(ROOT)}")
    if usual and form == "full" and not wrong:
        report.write(RESULTS, lines)
        print(f"written: {RESULTS.relative_to(ROOT)}")
        if picture.draw(kept.results, PICTURE):
            print(f"written: {PICTURE.relative_to(ROOT)}")
    said = [*_failed(kept), *wrong]
    for line in said:
        print(line)
    return 1 if said else 0


def _command(options: argparse.Namespace) -> str:
    """What was asked for, all of it."""
    words = ["./run bench core"]
    words += [f"--{name}" for name in ("quick", "resume") if getattr(options, name)]
    words += ["--no-peers"] if options.no_peers else []
    words += ["--only", *options.only] if options.only else []
    words += ["--rounds", str(options.rounds)] if options.rounds else []
    words += ["--threads", *map(str, options.threads)] if options.threads else []
    return " ".join(words)


def _parser() -> argparse.ArgumentParser:
    full = Plan(quick=False, peers=True, rounds=1, threads=_threads([1, 2]))
    parser = argparse.ArgumentParser(
        prog="./run bench core",
        description="The training core against its peers, against the machine and against what was to be shown.",
        epilog=f"Sections: {_names(full)}.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute or two; prints, and writes no file of the project"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run that was interrupted, and try again what failed"
    )
    parser.add_argument("--no-peers", action="store_true", help="plain PyTorch alone; installs nothing")
    parser.add_argument(
        "--only",
        nargs="*",
        metavar="SECTION",
        help="sections of that name, or whose names begin so; prints, and writes what `exact` and `bf16` measure",
    )
    parser.add_argument("--rounds", type=_count, default=None, help="turns of each peer, 1 or more (7; quick: 3)")
    parser.add_argument("--threads", type=_count, nargs="+", default=None, help="thread counts (1 2; quick: 1)")
    # Answered before this parser is asked, and so only by itself: what it runs needs neither peers nor sections.
    parser.add_argument(
        "--cuda", action="store_true", help="on a CUDA device instead; goes with no other option; prints"
    )
    return parser


def _count(text: str) -> int:
    """Raises ArgumentTypeError for what is no whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _meant(wanted: str, names: Iterable[str]) -> list[str]:
    """The section of that name, or those whose names begin so."""
    return [wanted] if wanted in names else [name for name in names if name.startswith(wanted)]


def _plan(options: argparse.Namespace) -> Plan:
    rounds = options.rounds or (3 if options.quick else 7)
    threads = _threads(options.threads or ([1] if options.quick else [1, 2]))
    return Plan(quick=options.quick, peers=not options.no_peers, rounds=rounds, threads=threads)


def _threads(wanted: list[int]) -> tuple[int, ...]:
    return tuple(count for count in wanted if count <= cpu_count())


def _names(plan: Plan) -> str:
    return ", ".join(sections(plan))


def _peers() -> Path | None:
    try:
        return peers_python()
    except PeersUnavailable as error:
        print(f"  JAX and learned_optimization are left out, their packages could not be installed: {error}")
        return None


def _failed(kept: Kept) -> list[str]:
    return [f"FAILED: {name}: {why}" for name, why in kept.failed.items()]


def _wrong(results: dict[str, Any]) -> list[str]:
    peers = [
        f"WRONG: on {name} the meta-gradient of {found['about']['name']} is off by {found['difference']:.1e}; "
        f"{reference.TOLERANCE:.0e} is allowed"
        for name, measured in results.items()
        if name.startswith(("compare/", "exact/"))
        for peer, found in measured["peers"].items()
        if not is_right(measured, peer)
    ]
    backends = [
        f"WRONG: {row['backend']} in {row['dtype']} is off by {worst_of(row):.1e} on {row['problem']}; "
        f"{row['allowed']:.0e} is allowed"
        for row in results.get("accuracy", {}).get("rows", [])
        if not worst_of(row) <= accuracy.ALLOWED[row["dtype"]]
    ]
    products = [
        f"WRONG: the meta-gradient with products in bfloat16 is off float32's by {row['off_float32']:.1e} on "
        f"{row['problem']}; {bf16.ALLOWED:.0e} is allowed"
        for row in results.get("bf16", {}).get("rows", [])
        if not row["off_float32"] <= bf16.ALLOWED
    ]
    return peers + backends + products
