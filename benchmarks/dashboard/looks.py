"""Pictures of every view, and what axe-core finds in them."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.dashboard.browsing import DIALOGS, SCHEMES, WIDTHS, browser, opened
from benchmarks.dashboard.stage import Stage, going_on

NARROWEST = 360
REPAINTED_MILLISECONDS = 400
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


def look(stage: Stage, folder: Path, axe: str | None, views: Mapping[str, str]) -> Iterator[str]:
    """Take a picture of each view in light and dark, wide and narrow; tells what is wrong, a line each."""
    folder.mkdir(parents=True, exist_ok=True)
    live = [job for name, job in stage.jobs.items() if name.startswith("running")]
    with browser() as chromium, going_on(stage, live):
        for name, route in views.items():
            _, pressed = DIALOGS.get(name, (None, None))
            page = opened(chromium, stage.url, route, pressed)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                for scheme in SCHEMES:
                    place = f"{name}-{width}-{scheme}"
                    page.emulate_media(color_scheme=scheme)
                    page.wait_for_timeout(REPAINTED_MILLISECONDS)
                    page.screenshot(path=folder / f"{place}.png", full_page=True)
                    yield from (f"{place}: {found}" for found in _too_wide(page))
                    if axe is not None:
                        yield from (f"{place}: {found}" for found in _inaccessible(page, axe))
            page.set_viewport_size({"width": NARROWEST, "height": 900})
            yield from (f"{name}-{NARROWEST}: {found}" for found in _too_wide(page))
            yield from (f"{name}: {error}" for error in page.wrong)
            page.close()


def _too_wide(page: Any) -> list[str]:
    width, shown = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [f"the page is {width} px wide in a window of {shown}"] if width > shown else []


def _inaccessible(page: Any, axe: str) -> list[str]:
    """What axe-core finds that is more than minor."""
    page.evaluate(axe)
    found = page.evaluate("tags => axe.run({runOnly: {type: 'tag', values: tags}})", [*TAGS, "best-practice"])
    return [
        f"{rule['impact']} {rule['id']}: {rule['help']}: {rule['nodes'][0]['html'][:140]}"
        for rule in found["violations"]
        if rule["impact"] != "minor"
    ]


def axe_source(path: Path | None) -> str | None:
    """The text of axe-core: of that file, or of the package axe-playwright-python where it is installed."""
    if path is not None:
        return path.read_text()
    try:
        package = importlib.resources.files("axe_playwright_python")
    except ModuleNotFoundError:
        return None
    found = next(
        (each for each in package.iterdir() if each.name.startswith("axe") and each.name.endswith(".js")), None
    )
    return found.read_text() if found is not None else None
