"""How quickly a curve of a million points is zoomed, what an open page costs, and when it is first seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.dashboard.browsing import browser, opened
from benchmarks.dashboard.stage import Stage, curve, going_on, record

POINTS = 1_000_000
DRAWN = 2000
ZOOMS = 60
RUNNING = 20

# The picture moves at once with the points that are there; the detail comes from the server.
_DRAWN_AGAIN = """() => new Promise((done, failed) => {
  setTimeout(() => failed(new Error('no detail was drawn within 10 s')), 10000);
  const began = performance.now();
  performance.clearMarks();
  const at = name => performance.getEntriesByName(name)[0]?.startTime - began;
  const wait = () => performance.getEntriesByName('gradsmith-detail-drawn').length
    ? requestAnimationFrame(() => done([at('gradsmith-chart-drawn'), performance.now() - began]))
    : requestAnimationFrame(wait);
  KEY
  wait();
})"""


def zoom(stage: Stage, points: int = POINTS) -> dict[str, Any]:
    """Zoom in and out of a stored curve; milliseconds from the key to the frame with its detail."""
    job = stage.post(kind="meta_train", family="quadratic", seed=99, recipe={"meta_steps": points}, evaluate=False)
    worker = stage.claim(job)
    began = time.perf_counter()
    record(worker, curve(points, 99))
    written = time.perf_counter() - began
    worker.progress(points, points)
    worker.finish_training()
    with browser() as chromium:
        page = opened(chromium, stage.url, f"jobs/{job}")
        page.wait_for_selector(".uplot canvas", timeout=60_000)
        press: Callable[[str], list[float]] = lambda key: page.evaluate(  # noqa: E731
            _DRAWN_AGAIN.replace(
                "KEY",
                "document.querySelector('[aria-label^=\"loss curve\"]')"
                f".dispatchEvent(new KeyboardEvent('keydown', {{key: {key!r}, bubbles: true}}));",
            )
        )
        # From within, in and out again: at the edges of the zoom nothing moves, and no detail would come.
        keys = ["+", "+", *(key for _ in range(ZOOMS // 6) for key in ("+", "ArrowRight", "+", "ArrowLeft", "-", "-"))]
        moved, taken = zip(*[press(key) for key in keys], strict=True)
        drawn = page.evaluate(
            "document.querySelector('section[aria-labelledby=loss-title] small:last-of-type').textContent"
        )
        page.close()
    return {
        "points": points,
        "load": round(os.getloadavg()[0], 1),  # processes that wanted the machine meanwhile
        "written_seconds": round(written, 1),
        "zooms": len(taken),
        "moved_p95_ms": round(float(np.quantile(moved, 0.95)), 1),
        "median_ms": round(float(np.median(taken)), 1),
        "p95_ms": round(float(np.quantile(taken, 0.95)), 1),
        "largest_ms": round(max(taken), 1),
        "said": drawn,
    }


def bytes_per_minute(stage: Stage, seconds: float = 60.0) -> dict[str, Any]:
    """What an open list with 20 running jobs transfers, headers included, after it has been loaded."""
    jobs = []
    for number in range(RUNNING):
        job = stage.post(kind="meta_train", family="quadratic", seed=number, recipe={"meta_steps": 2000})
        worker = stage.claim(job)
        record(worker, curve(2000, number).part(0, 64 * (number + 1)))
        worker.progress(64 * (number + 1), 2000, eta_seconds=60.0)
        jobs.append(job)
    with browser() as chromium, going_on(stage, jobs):
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        received = {"bytes": 0, "requests": 0}

        def count(event: dict[str, Any]) -> None:
            received["bytes"] += event["encodedDataLength"]
            received["requests"] += 1

        session.on("Network.loadingFinished", count)
        began = time.perf_counter()
        page.goto(f"{stage.url}/#/jobs")
        page.wait_for_selector("[data-job]")
        seen = time.perf_counter() - began
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        page.wait_for_timeout(4000)
        loaded = dict(received)
        page.wait_for_timeout(1000 * seconds)
        page.close()
    spent = received["bytes"] - loaded["bytes"]
    return {
        "running": RUNNING,
        "first_load_bytes": loaded["bytes"],
        "first_paint_ms": round(paint),
        "list_seen_ms": round(1000 * seen),
        "bytes_per_minute": round(spent * 60 / seconds),
        "requests_per_minute": round((received["requests"] - loaded["requests"]) * 60 / seconds),
    }
