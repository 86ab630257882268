"""The command line: what is measured, in which order, and what is kept so that an interrupted run can go on."""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.core import ceilings, growth, machine, picture, reference, report, step
from benchmarks.core.compare import compare
from benchmarks.core.environment import ROOT, PeersUnavailable, peers_python
from benchmarks.core.fleet import OURS, PEERS, PLAIN, Bench, cpu_count
from benchmarks.core.problem import COMPARED, MLP, QUADRATICS

FOLDER = ROOT / "var" / "bench"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PICTURE = ROOT / "docs" / "images" / "core.png"

Section = Callable[[], Any]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    bench = Bench(FOLDER, None if options.no_peers else _peers())
    form = "quick" if options.quick else "only" if options.only else "full"
    kept = _Kept(FOLDER / f"core-{form}.json", go_on=options.resume)
    kept.measure("machine", machine.described)
    for name, section in _sections(bench, options).items():
        if options.only and not name.startswith(tuple(options.only)):
            continue
        print(f"  {name} ({time.perf_counter() - started:.0f} s so far)", flush=True)
        kept.measure(name, section)
    command = "./run bench core" + (" --quick" if options.quick else "")
    section_lines = report.lines(kept.results, command, datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"))
    print("\n" + "\n".join(section_lines))
    print(f"\n{time.perf_counter() - started:.0f} s")
    if not options.quick and not options.only:
        report.write(RESULTS, section_lines)
        picture.draw(kept.results, PICTURE)
        print(f"written: {RESULTS.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")
    wrong = _wrong(kept.results)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


class _Kept:
    """Results in a file, section by section; with `go_on` the sections that are there are not measured again."""

    def __init__(self, file: Path, *, go_on: bool) -> None:
        self._file = file
        self.results: dict[str, Any] = json.loads(file.read_text()) if go_on and file.exists() else {}

    def measure(self, name: str, section: Section) -> None:
        if name in self.results:
            return
        # Through JSON at once, so that a fresh result and a kept one are the same thing.
        self.results[name] = json.loads(json.dumps(section()))
        partly = self._file.with_suffix(".part")
        partly.write_text(json.dumps(self.results, indent=1))
        partly.replace(self._file)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench core", description=report.__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="under a minute; prints, and writes no file of the project"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that was interrupted")
    parser.add_argument("--no-peers", action="store_true", help="plain PyTorch alone; installs nothing")
    parser.add_argument("--only", nargs="*", metavar="SECTION", help="sections whose name begins so; prints only")
    parser.add_argument("--rounds", type=int, default=None, help="turns of each peer (7; quick: 3)")
    parser.add_argument("--threads", type=int, nargs="*", default=None, help="thread counts (1 2; quick: 1)")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 7)
    wanted = options.threads or ([1] if options.quick else [1, 2])
    options.threads = [count for count in wanted if count <= cpu_count()]
    return options


def _peers() -> Path | None:
    try:
        return peers_python()
    except PeersUnavailable as error:
        print(f"  JAX and learned_optimization are left out, their packages could not be installed: {error}")
        return None


def _sections(bench: Bench, options: argparse.Namespace) -> dict[str, Section]:
    def say(line: str) -> None:
        print(line, flush=True)

    sections: dict[str, Section] = {"ceilings": partial(ceilings.measure, bench.folder)}
    # The short form leaves out learned_optimization, which compiles for half a minute, the convnet, and much of growth.
    peers = tuple(peer for peer in PEERS if not options.no_peers or peer in (OURS, PLAIN))
    for threads in options.threads:
        for problem in (MLP, QUADRATICS) if options.quick else COMPARED:
            who = peers[:3] if options.quick else peers
            sections[f"compare/{problem.slug}/{threads}"] = partial(
                compare, bench, problem, threads, options.rounds, who, say
            )
    for what, problems in growth.families(options.quick).items():
        sections[f"growth/{what}"] = partial(growth.measure, bench, problems, 3, not options.quick, say)
    for size in (10_000, 100_000) if options.quick else (10_000, 100_000, 1_000_000, 10_000_000):
        rounds = 2 if size > 1_000_000 else 3 if options.quick else 7
        sections[f"step/{size}"] = partial(step.measured_apart, size, rounds)
    return sections


def _wrong(results: dict[str, Any]) -> list[str]:
    return [
        f"WRONG: on {name} the meta-gradient of {found['about']['name']} is off by {found['difference']:.1e}; "
        f"{reference.TOLERANCE:.0e} is allowed"
        for name, measured in results.items()
        if name.startswith("compare/")
        for found in measured["peers"].values()
        if not found["difference"] <= reference.TOLERANCE
    ]
