"""The command line: pictures, accessibility and measurements of the dashboard."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.dashboard.browsing import EMPTY, KEYED, NoBrowser, routes
from benchmarks.dashboard.looks import axe_source, look
from benchmarks.dashboard.measures import POINTS, bytes_per_minute, zoom
from benchmarks.dashboard.stage import fill, staged

FOLDER = Path(__file__).parents[2] / "var" / "dashboard"
ZOOM_P95_MILLISECONDS = 150
PARTS = ("looks", "zoom", "bytes")


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 where something is wrong, a target is missed or there is no browser."""
    parser = argparse.ArgumentParser(prog="./run bench dashboard", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--views", nargs="+", default=[], help="pictures of these views alone")
    parser.add_argument("--pictures", type=Path, default=FOLDER, help="where pictures go (var/dashboard)")
    parser.add_argument("--axe", type=Path, help="axe.min.js; else that of the package axe-playwright-python")
    parser.add_argument("--points", type=int, default=POINTS, help="of the curve that is zoomed")
    options = parser.parse_args(arguments)
    missed = False
    try:
        if "looks" in options.only:
            axe = axe_source(options.axe)
            wrong, seen = 0, 0
            others = {"empty": EMPTY, "keyed": KEYED}
            for kind in (*others, "filled"):
                elsewhere = {*EMPTY, *KEYED} if kind == "filled" else set(options.views) - others[kind].keys()
                if options.views and set(options.views) <= elsewhere:
                    continue
                with staged(auth="on" if kind == "keyed" else "off") as stage:
                    if kind == "filled":
                        fill(stage)
                    all_views = others.get(kind) or routes(stage)
                    views = {name: all_views[name] for name in all_views if name in (options.views or all_views)}
                    seen += len(views)
                    for line in look(stage, options.pictures, axe, views):
                        print(line, flush=True)
                        wrong += 1
            print(f"pictures: {options.pictures}")
            print(
                "axe-core: " + ("not run (pip install axe-playwright-python, or --axe FILE)" if axe is None else "run")
            )
            print(f"views: {seen}, each in light and dark, at 1280 and 390 px; wrong: {wrong}")
            missed |= wrong > 0
        if "zoom" in options.only:
            with staged() as stage:
                found = zoom(stage, options.points)
            reached = found["p95_ms"] <= ZOOM_P95_MILLISECONDS
            print(json.dumps(found))
            print(f"zoom p95 within {ZOOM_P95_MILLISECONDS} ms: {'reached' if reached else 'NOT REACHED'}")
            missed |= not reached
        if "bytes" in options.only:
            with staged() as stage:
                print(json.dumps(bytes_per_minute(stage)))
    except NoBrowser as error:
        print(f"not run: {error}")
        return 1
    return 1 if missed else 0
