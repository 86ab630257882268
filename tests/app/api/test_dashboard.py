"""The dashboard in a real browser, on a server with keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.store.sessions import Database
from workshop.keyed import bearing, make_key, with_keys
from workshop.serving import serving
from workshop.working import Worker, evaluation_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
WAIT_MILLISECONDS = 60_000


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


@pytest.fixture
def seat(settings: Settings, sqlite_database: Database) -> Iterator[Seat]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no browser on this machine")
    keyed = with_keys(settings)
    token = make_key(keyed)
    with serving(keyed) as url, bearing(url, token) as api, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(WAIT_MILLISECONDS)
        taken = Seat(page, url, token, api, keyed, sqlite_database)
        page.on("pageerror", lambda error: taken.wrong.append(str(error)))
        page.on(
            "console",
            lambda message: "Content Security Policy" in message.text and taken.wrong.append(message.text),
        )
        page.on("request", lambda request: taken.asked.append(request.url))
        yield taken
        browser.close()


def test_people_find_their_way(seat: Seat) -> None:
    """The key, the live list, a live curve, a report, an alias, a family, a broken connection: one browser for all."""
    first = seat.train(metadata={"name": "first"})
    running = seat.api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "seed": 3}).json()["id"]
    worker = seat.worker(running)
    worker.record(worker.metrics(*range(1, 30)))
    worker.progress(29)
    page = seat.page

    # a key that was cut off, then the right one
    page.goto(seat.url)
    page.fill("#key input", seat.token[:-4])
    page.click("#key button")
    page.wait_for_function("() => document.querySelector('#key [role=alert]')?.textContent.includes('was it cut off')")
    page.fill("#key input", seat.token)
    page.click("#key button")
    page.wait_for_selector(f"[data-job={first}] .wins")

    # rows change in place: focus and selection stay
    cancel = page.locator(f"[data-job={running}] button", has_text="Cancel")
    cancel.focus()
    worker.progress(612)
    page.wait_for_function(f"() => document.querySelector('[data-job={running}]').textContent.includes('612')")
    assert page.evaluate("document.activeElement.textContent") == "Cancel"

    # a live curve, by the stream
    page.click(f"[data-job={running}] .name a")
    page.wait_for_selector(".uplot canvas")
    worker.publish(worker.metrics(*range(30, 41)))
    page.wait_for_function("() => document.querySelector('.u-series .u-value').textContent === '35'")

    # what it measured
    seat.go(f"jobs/{first}")
    page.wait_for_selector(".sentence")
    assert "wins against tuned Adam" in page.inner_text(".sentence >> nth=0")

    # cancel, with a question before it; retry
    seat.go(f"jobs/{running}")
    page.click("main .head button:has-text('Cancel')")
    page.click("dialog[open] button:has-text('Cancel the job')")
    page.wait_for_selector(".status.cancelling")
    worker.finish_training()
    page.wait_for_selector(".status.cancelled")
    page.click("main .head button:has-text('Retry')")
    page.wait_for_selector(".status.queued")

    # a job by the form: only what was changed is sent
    seat.go("jobs/new?family=quadratic")
    page.fill("#recipe-meta_steps", "77")
    page.click("button:has-text('Start the job')")
    page.wait_for_selector("h1:has-text('quadratic training')")
    posted = seat.api.get("/jobs?limit=1").json()["data"][0]
    assert (posted["spec"]["recipe"]["meta_steps"], posted["spec"]["recipe"]["tasks"]) == (77, 16)

    # an alias: made, then moved from one version to the next
    seat.train(seed=2)
    for version in (1, 2):
        seat.go(f"optimizers/quadratic@{version}")
        if version == 1:
            page.fill("input[aria-label='name of the new alias']", "prod")
            page.click("button:has-text('Create for version 1')")
        else:
            page.click("button:has-text('Move here')")
            page.click("dialog[open] button:has-text('Move it')")
        page.wait_for_selector("td:has-text('this one')")
        assert seat.api.get("/families/quadratic/aliases/prod").json()["version"] == version
    page.wait_for_selector(".prose h2:has-text('quadratic@2')")
    with page.expect_download() as download:
        page.click("button:has-text('Download the weights')")
    assert download.value.suggested_filename == "quadratic@2.safetensors"

    # a family of one's own
    seat.go("families/new")
    page.fill("#family-name", "ridge")
    page.click("button:has-text('Create the family')")
    page.wait_for_selector("h1:has-text('ridge')")
    assert seat.api.get("/families/ridge").json()["declared"]

    # a table of one's own, and a family of it
    rows = [f"c{number},{number * row},{number * row % 2}" for number in range(1, 9) for row in range(1, 5)]
    table = "\n".join(["customer,income,churned", *rows]) + "\n"
    seat.go("datasets")
    page.set_input_files("#file", {"name": "Customers.csv", "mimeType": "text/csv", "buffer": table.encode()})
    page.select_option("#target", "churned")
    page.select_option("#group", "customer")
    page.click("button:has-text('Send it')")
    page.click("a:has-text('Make a family of it')")
    page.fill("#family-name", "churn")
    page.click("button:has-text('Create the family')")
    page.wait_for_selector("h1:has-text('churn')")
    assert seat.api.get("/families/churn").json()["tasks"]["dataset"]["name"] == "customers"

    # two jobs side by side
    seat.go(f"compare?job={first}&job={running}")
    page.wait_for_selector("tr.changed:has-text('seed')")

    # the connection breaks, and comes back
    seat.go("jobs")
    page.wait_for_selector(f"[data-job={first}]")
    page.context.set_offline(True)
    page.wait_for_selector(".banner")
    assert page.is_visible(f"[data-job={first}]")
    page.context.set_offline(False)
    page.wait_for_selector(".banner", state="detached")

    # the key was in no address and in no store that outlives the tab
    secret = seat.token.rsplit("_", 1)[1]
    assert not [address for address in seat.asked if secret in address]
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.click("#forget")
    page.wait_for_selector("#key")
    assert page.evaluate("sessionStorage.length") == 0
    assert seat.wrong == []
    worker.close()
