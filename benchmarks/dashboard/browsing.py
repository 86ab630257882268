"""A browser before a staged service."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from benchmarks.dashboard.stage import Stage

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
SETTLED_MILLISECONDS = 1500
PATIENCE_MILLISECONDS = 300_000  # for a machine that has other things to do


class NoBrowser(RuntimeError):
    """There is no browser here, or nothing that drives it."""


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A Chromium of Playwright's. Raises NoBrowser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise NoBrowser("pip install playwright, which drives the browser") from error
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise NoBrowser("there is no chromium on PATH: apt-get install chromium")
    with sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield launched
        finally:
            launched.close()


EMPTY = {"first-run": "jobs", "no-optimizers": "optimizers", "no-datasets": "datasets", "nothing-compared": "compare"}
"""Views of a service in which nothing was done yet."""


def routes(stage: Stage) -> dict[str, str]:
    """The address of every view, by a name for its picture. Whoever looks at all views takes them from here."""
    jobs = stage.jobs
    compared = "&".join(f"job={jobs[name]}" for name in ("quadratic-1", "quadratic-2", "quadratic-3"))
    views = {
        "jobs": "jobs",
        "job-live": f"jobs/{jobs['running-1']}",
        "job": f"jobs/{jobs['quadratic-3']}",
        "job-failed": f"jobs/{jobs['failed']}",
        "evaluation": f"jobs/{jobs['evaluation']}",
        "preview": f"jobs/{jobs['preview']}",
        "new-job": "jobs/new?family=digits-mlp",
        "optimizers": "optimizers",
        "optimizer": "optimizers/quadratic@3",
        "optimizer-before": "optimizers/quadratic@1",
        "families": "families",
        "family": "families/digits-mlp",
        "new-family": "families/new",
        "datasets": "datasets",
        "dataset": "datasets/customers",
        "sweep": f"jobs/{jobs['sweep']}",
        "sweep-live": f"jobs/{jobs['sweep-live']}",
        "compare": f"compare?{compared}",
        "system": "system",
        "missing": "jobs/job_0198f0c2a4b07e3f9d5c1b2a3d4e5f60",
    }
    return views | {name: views[view] for name, (view, _) in DIALOGS.items()}


DIALOGS = {
    "dialog-cancel": ("job-live", "main .head button.danger"),
    "dialog-move-alias": ("optimizer-before", "td .actions button.small:not(.danger)"),
    "dialog-delete-alias": ("optimizer-before", "td .actions button.danger"),
    "dialog-archive": ("optimizer", "main .card header button.danger:has-text('Archive')"),
    "dialog-delete": ("optimizer-before", "main .card header button.danger:has-text('Delete')"),
    "dialog-needed": ("optimizer", "main .card header button.danger:has-text('Delete')"),
    "dialog-dataset": ("dataset", "main .head button.danger"),
}
"""Every question that a view asks: the view, and what is pressed there."""
KEYED = {"key": "jobs"}
"""What a server with keys shows to whoever has none."""


def opened(browser: Any, url: str, route: str, pressed: str | None = None) -> Any:
    """A page that shows a view, after something in it was pressed; the caller closes it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(f"{url}/#/{route}")
    page.wait_for_function("() => !document.querySelector('main .loading')")
    if pressed is not None:
        page.locator(pressed).first.click()
        page.wait_for_selector("dialog[open]")
    page.wait_for_timeout(SETTLED_MILLISECONDS)
    return page
