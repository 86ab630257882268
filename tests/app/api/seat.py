"""Somebody before the dashboard, in a real browser."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from app.auth import Scope
from app.settings import Settings
from app.store.sessions import Database
from workshop.keyed import bearing, make_key, with_keys
from workshop.serving import serving
from workshop.working import Worker, evaluation_result

WAIT_MILLISECONDS = 60_000
MOST_TABS = 250


@dataclass
class Seat:
    """Somebody before the dashboard: the page, what it asked for, and what went wrong in it."""

    page: Any
    url: str
    token: str
    api: httpx.Client
    settings: Settings
    database: Database
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def go(self, route: str) -> None:
        self.page.goto(f"{self.url}/#/{route}")

    def worker(self, job: str) -> Worker:
        return Worker(self.settings, self.database, job)

    def train(self, **body: Any) -> str:
        """A training that has ended, without an evaluation."""
        job = str(self.api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", **body}).json()["id"])
        worker = self.worker(job)
        worker.record(worker.metrics(*range(1, 50)))
        made = worker.finish_training()
        if made.follow_up is not None:
            measuring = self.worker(made.follow_up.id)
            measuring.finish_evaluation(evaluation_result())
            measuring.close()
        worker.close()
        return job

    def tab_to(self, selector: str, *, key: str = "Tab") -> None:
        """Press a key until what has the focus matches `selector`."""
        for _ in range(MOST_TABS):
            if self.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            self.page.keyboard.press(key)
        raise AssertionError(f"{key} never comes to {selector}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


@contextlib.contextmanager
def seated(settings: Settings, database: Database, scope: Scope = "submit") -> Iterator[Seat]:
    """A browser before a server with keys; skips where there is no browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no browser on this machine")
    keyed = with_keys(settings, reconcile_interval_seconds=3600)  # nobody renews the leases
    token = make_key(keyed, scope)
    with serving(keyed) as url, bearing(url, token) as api, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(WAIT_MILLISECONDS)
        taken = Seat(page, url, token, api, keyed, database)
        page.on("pageerror", lambda error: taken.wrong.append(str(error)))
        page.on(
            "console", lambda told: taken.wrong.extend([told.text] if "Content Security Policy" in told.text else [])
        )
        page.on("request", lambda request: taken.asked.append(request.url))
        yield taken
        browser.close()
