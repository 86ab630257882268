"""The command line: which sections are measured, and what becomes of them."""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import time
from functools import partial

from benchmarks.core import machine
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.core.kept import Kept
from benchmarks.service import report, verdicts
from benchmarks.service.bench import Bench
from benchmarks.service.sections import FULL, QUICK, on_request, sections

FOLDER = ROOT / "var" / "bench"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 when a section failed or a row is missed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    chosen = sections(plan)
    if options.only is not None:
        chosen |= on_request(plan)
        unknown = [name for name in options.only if name not in chosen]
        if unknown or not options.only:
            parser.error(f"--only {' '.join(unknown)}: there are {', '.join(chosen)}")
        chosen = {name: section for name, section in chosen.items() if name in options.only}
    # So that SIGTERM, too, ends the servers and folders that a section has made.
    signal.signal(signal.SIGTERM, lambda signum, _frame: sys.exit(128 + signum))
    FOLDER.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    form = "quick" if options.quick else "only" if options.only else "full"
    stolen = machine.Stolen()
    kept = Kept(FOLDER / f"service-{form}.json", machine.described(), go_on=False)
    with Bench(peer=not options.no_peer) as bench:
        for name, section in chosen.items():
            print(f"  {name} ({time.perf_counter() - started:.0f} s so far)", flush=True)
            kept.measure(name, partial(section, bench))
        kept.results["about"] = report.about(bench, plan, stolen.share(), partial=options.only is not None)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    lines = report.lines(kept.results, kept.failed, _command(options), date)
    print("\n" + "\n".join(lines))
    print(f"\n{time.perf_counter() - started:.0f} s")
    if form == "full" and not options.no_peer:  # RESULTS.md has the default run, and no other
        core_report.write(RESULTS, lines, report.MARKS)
        print(f"written: {RESULTS.relative_to(ROOT)}")
    missed = [verdict for verdict in verdicts.verdicts(kept.results) if verdict.said == "NOT REACHED"]
    for name, why in kept.failed.items():
        print(f"FAILED: {name}: {why}")
    for verdict in missed:
        print(f"NOT REACHED: {verdict.what}")
    return 1 if kept.failed or missed else 0


def _command(options: argparse.Namespace) -> str:
    words = ["./run bench service"]
    words += [f"--{name}" for name in ("quick",) if getattr(options, name)]
    words += ["--no-peer"] if options.no_peer else []
    words += ["--only", *options.only] if options.only else []
    return " ".join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run bench service",
        description="The service under load against MLflow and against what was to be shown.",
        epilog=f"Rows: {', '.join(sections(FULL))}. Only when named: {', '.join(on_request(FULL))} (MLflow under other "
        "options).",
    )
    parser.add_argument("--quick", action="store_true", help="two minutes; prints, and writes no file of the project")
    parser.add_argument("--no-peer", action="store_true", help="without MLflow; installs nothing")
    parser.add_argument("--only", nargs="*", metavar="ROW", help="these rows; prints")
    return parser
