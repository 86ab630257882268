"""The dashboard in a real browser, on a server with keys."""

from __future__ import annotations

import copy
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.openapi.examples import FAMILY_REQUEST
from app.settings import Settings
from app.store.sessions import Database
from tests.app.api.seat import Seat, seated
from workshop.working import Worker, evaluation_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RUNNING = 20


@pytest.fixture
def seat(settings: Settings, sqlite_database: Database) -> Iterator[Seat]:
    with seated(settings, sqlite_database) as taken:
        yield taken


@pytest.fixture
def postgres_seat(settings: Settings, postgres_url: str) -> Iterator[Seat]:
    elsewhere = settings.model_copy(update={"database_url": postgres_url})
    with Database(postgres_url) as database, seated(elsewhere, database) as taken:
        yield taken


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
    assert page.is_visible("small:has-text('40 points')"), "those that were streamed count"

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
    seat.go("families/new")
    page.fill("#family-name", "named-ridge")
    page.fill("#family-definitions", "\nresidual = A @ theta - y\n")
    page.fill("#family-loss", "mean(residual**2) + weight * sum(theta**2)")
    page.click("button:has-text('Create the family')")
    page.wait_for_selector("h1:has-text('named-ridge')")
    assert seat.api.get("/families/named-ridge").json()["tasks"]["definitions"] == ["residual = A @ theta - y"]

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


def test_what_was_measured_and_what_the_machine_needs(
    settings: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of families, a zoom, a download that fails, and the doctor: with an admin key."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
    with seated(settings, sqlite_database, scope="admin") as seat:
        page = seat.page
        seat.train()
        page.goto(f"{seat.url}/#/families")
        page.fill("#key input", seat.token)
        page.click("#key button")

        # a picture for the family that was measured, an offer for those that were not
        page.wait_for_selector(".card:has(a[href='#/families/quadratic']) .glance svg polyline")
        assert page.is_visible(".glance a[href='#/jobs/new?family=rosenbrock&kind=preview']")
        assert len([each for each in seat.asked if each.endswith("/report.json")]) == 1, "one report, and once"

        # a zoom asks for its part before the picture moves, and the best line is that of the whole curve
        seat.go(f"jobs/{seat.api.get('/jobs?kind=meta_train').json()['data'][0]['id']}")
        page.wait_for_selector(".uplot canvas")
        page.click("button[aria-label='zoom in']")
        page.wait_for_function("() => performance.getEntriesByName('gradsmith-detail-drawn').length > 1")
        assert [each for each in seat.asked if "from_step=" in each]

        # a download that cannot reach its host
        seat.go("datasets")
        page.click("button[aria-label='Fetch mnist']")
        page.wait_for_selector("li:has-text('mnist') [role=alert]:has-text('The download failed')")
        assert page.is_visible("button[aria-label='Fetch mnist']"), "to try again"

        # the doctor: what is wrong, and all of it
        seat.go("system")
        page.wait_for_selector("#doctor button:has-text('that passed')", timeout=150_000)  # it imports torch
        page.click("#doctor button:has-text('that passed')")
        page.wait_for_selector("#doctor th:has-text('database')")
        assert seat.wrong == []


def test_an_optimizer_is_deleted_after_a_question_that_says_what_goes(seat: Seat) -> None:
    page = seat.page
    seat.train()
    page.goto(seat.url)
    page.fill("#key input", seat.token)
    page.click("#key button")
    page.wait_for_selector("[data-job]")

    # an optimizer that an evaluation needs stays; another goes for good, and its job stays
    seat.go("optimizers/quadratic@1")
    page.click("button:has-text('Delete')")
    page.wait_for_selector("dialog[open]:has-text('It is needed by the evaluation')")
    assert not page.is_visible("dialog[open] button.primary")
    seat.press("Escape")
    seat.train(seed=5, evaluate=False)
    seat.go("optimizers/quadratic@2")
    page.wait_for_selector("h1:has-text('quadratic@2')")
    page.click("button:has-text('Delete')")
    page.wait_for_selector("dialog[open]:has-text('nobody can load quadratic@2')")
    page.click("dialog[open] button:has-text('Delete it')")
    page.wait_for_selector("h1:has-text('Optimizers')")
    assert seat.api.get("/optimizers/quadratic@2/record").status_code == 404
    assert seat.wrong == []


def enter(seat: Seat, route: str = "jobs") -> None:
    """Open a view, with the key that it asks for."""
    seat.page.goto(f"{seat.url}/#/{route}")
    seat.page.fill("#key input", seat.token)
    seat.page.click("#key button")


def test_a_job_that_was_retried_is_followed_to_the_end_of_its_last_attempt(seat: Seat) -> None:
    job = seat.api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "seed": 3}).json()["id"]
    first = seat.worker(job)
    first.record(first.metrics(*range(1, 11)))
    first.fail("the machine caught fire")
    first.close()
    seat.api.post(f"/jobs/{job}/retry").raise_for_status()
    second = Worker(seat.settings, seat.database, job, attempt=2)
    second.record(second.event("resumed", {"from_step": 0}), second.metrics(*range(1, 21)))
    second.progress(20)
    enter(seat, f"jobs/{job}")
    page = seat.page
    page.wait_for_selector(".log li:has-text('the machine caught fire')")
    page.wait_for_selector(".log li:has-text('begins anew')")
    page.wait_for_selector(".uplot canvas")
    told = second.event("log", {"message": "here it goes on", "level": "info"})
    second.publish(told, second.metrics(*range(21, 31)))
    page.wait_for_selector(".log li:has-text('here it goes on')")
    page.wait_for_function("() => document.querySelector('.u-series .u-value').textContent === '25'")
    second.record(*second.sent)
    second.finish_training()
    page.wait_for_selector(".log li:has-text('succeeded')")
    assert seat.wrong == []
    second.close()


UNTUNED = ("adam_default", "schedule_free", "prodigy", "dog", "muon", "soap")
CUT = """() => [...document.querySelectorAll('svg.forest, svg.scatter')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const at = text.getBoundingClientRect();
    return at.left < box.left - 1 || at.right > box.right + 1 || at.bottom > box.bottom + 1;
  }).map(text => text.textContent);
})"""
OVERLAPPING = """() => [...document.querySelectorAll('svg.forest, svg.scatter')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  return texts.flatMap(([word, one], place) => texts.slice(place + 1).filter(([, other]) =>
    one.left < other.right - 1 && other.left < one.right - 1 && one.top < other.bottom - 4 && other.top < one.bottom - 4
  ).map(([against]) => `${word} over ${against}`));
})"""
SAMPLES = """() => [...document.querySelectorAll('.chart')].map(chart =>
  [...chart.querySelectorAll('.u-series:not(.silent) .u-marker line')].map(line =>
    `${line.getAttribute('stroke')} ${line.getAttribute('stroke-dasharray')} ${line.getAttribute('stroke-width')}`))"""

PAINTED = """() => [...document.querySelectorAll('.chart canvas')].map(canvas => {
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;  // what has a colour: axes and their words are grey
  for (let at = 0; at < data.length; at += 4) {
    const paint = data.slice(at, at + 3);
    if (data[at + 3] > 200 && Math.max(...paint) - Math.min(...paint) > 60) count += 1;
  }
  return count;
})"""


def with_many_baselines() -> dict[str, Any]:
    """A result with 11 optimizers: one baseline leaves for 1e15, one has no mean, ratios go down to 0.0017."""
    result: dict[str, Any] = json.loads(json.dumps(evaluation_result()))  # no two parts share what is changed
    result["tiers"]["untuned"] = list(UNTUNED)
    for place, name in enumerate(UNTUNED):
        result["optimizers"][name] = copy.deepcopy(result["optimizers"]["sgd"])
        result["comparisons"][name] = copy.deepcopy(result["comparisons"]["sgd"])
        found = result["comparisons"][name]["final"]
        found["ratio_of_means"] = 0.00171 * 3**place
        found["ratio_interval"] = [0.8 * found["ratio_of_means"], 1.25 * found["ratio_of_means"]]
    sgd, nag = result["optimizers"]["sgd"], result["optimizers"]["nag"]
    sgd["curve"]["mean"][3:] = [2e15 for _ in sgd["curve"]["mean"][3:]]
    nag["curve"]["mean"][3:] = [None for _ in nag["curve"]["mean"][3:]]
    nag["final"] |= {"mean": None, "interval": [None, None]}
    result["comparisons"]["nag"]["final"] |= {"ratio_of_means": 0, "ratio_interval": [None, None]}
    pairs = result["paired"]["final"]
    for losses in (pairs["learned"], pairs["best_baseline"]):
        losses[:] = [2e-4 * loss for loss in losses]
    return result


def test_pictures_of_an_evaluation_have_room_for_every_word_and_a_line_of_its_own_for_each_optimizer(
    seat: Seat,
) -> None:
    body = {"kind": "meta_train", "family": "quadratic", "seed": 1}
    job = seat.api.post("/jobs", json=body).json()["id"]
    worker = seat.worker(job)
    worker.record(worker.metrics(*range(1, 50)))
    made = worker.finish_training()
    assert made.follow_up is not None
    measuring = seat.worker(made.follow_up.id)
    measuring.finish_evaluation(with_many_baselines())
    page = seat.page
    enter(seat, f"jobs/{made.follow_up.id}")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_selector("svg.scatter")
        page.wait_for_function(f"() => Boolean(document.querySelector('svg.forest')) && innerWidth === {width}")
        page.wait_for_timeout(300)
        assert page.evaluate(CUT) == []
        assert page.evaluate(OVERLAPPING) == []
        assert "Schedule-Free AdamW (untuned)" in page.text_content("svg.forest")
        assert "0.00171" in page.text_content("svg.forest")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert min(page.evaluate(PAINTED)) > 300, "the lines are seen"
    samples = page.evaluate(SAMPLES)
    assert len(samples[0]) == 11
    assert [len(set(each)) for each in samples] == [len(each) for each in samples]
    assert page.inner_text(".u-series .u-value >> nth=0") == "20", "the legend tells of the end"
    assert "SGD (up to 2.00e15)" in page.inner_text(".leaves")
    assert "no mean at the end: NAG" in page.inner_text(".leaves")
    row = page.inner_text("tr:has(th:text-is('NAG'))")
    assert "diverged" in row
    assert " to " not in row
    assert page.text_content("svg.forest ~ p") == "Not drawn, for their mean loss diverged: NAG."
    assert seat.wrong == []
    measuring.close()
    worker.close()


def test_seeds_and_ranges_are_shown_whole_and_a_phone_has_every_view(seat: Seat) -> None:
    seeds = (8_141_234_567_804_793, 2_981_234_567_801_442)
    jobs = [seat.train(seed=seed, evaluate=False) for seed in seeds]
    changed = {"recipe": {"meta_learning_rate": {"low": 0.001, "high": 0.03, "log": True}}}
    sweep = seat.api.post("/jobs", json={"kind": "sweep", "family": "quadratic", "trials": 2, **changed})
    sweep.raise_for_status()
    seat.api.post("/families", json=FAMILY_REQUEST | {"name": "zebra"}).raise_for_status()
    page = seat.page
    page.set_viewport_size({"width": 390, "height": 900})
    enter(seat)
    page.wait_for_selector(f"[data-job={sweep.json()['id']}] .chip:has-text('0.001…0.03 log')")
    right = page.evaluate(
        "() => Math.max(...[...document.querySelectorAll('nav a')].map(a => a.getBoundingClientRect().right))"
    )
    assert right <= 390
    seat.go(f"jobs/{jobs[0]}")
    page.wait_for_selector(f".stat:has-text('{seeds[0]}')")
    seat.go(f"compare?job={jobs[0]}&job={jobs[1]}")
    page.wait_for_selector(f"tr.changed:has-text('{seeds[1]}')")
    page.wait_for_selector(".u-legend")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.wait_for_selector(".wider")
    seat.go(f"jobs/{sweep.json()['id']}")
    page.wait_for_selector("tr.changed:has-text('meta_learning_rate'):has-text('0.001…0.03 log')")
    seat.go("optimizers")
    page.wait_for_selector(".filters [type=checkbox]")
    assert page.evaluate("document.querySelector('.filters [type=checkbox]').getBoundingClientRect().width") < 40
    seat.go("families")
    page.wait_for_selector(".grid .card:first-child a:has-text('zebra')")
    lines = "node => Math.round(node.getBoundingClientRect().height / parseFloat(getComputedStyle(node).lineHeight))"
    assert page.eval_on_selector(".grid .card:first-child .glance p span", lines) <= 2
    seat.go("jobs/nope")
    page.click("a:has-text('All jobs')")
    page.wait_for_selector(f"[data-job={jobs[0]}]")
    assert seat.wrong == []


def test_every_action_by_the_keyboard_alone(seat: Seat) -> None:
    """The key, a filter, a choice, a job, a cancellation that is thought better of, an alias: no mouse."""
    first, second = seat.train(metadata={"name": "first"}), seat.train(seed=2)
    page = seat.page
    page.goto(seat.url)
    page.wait_for_selector("#key input:focus")
    page.keyboard.type(seat.token)
    seat.press("Enter")
    page.wait_for_selector(f"[data-job={second}] .wins")

    # filters: a status by the arrows, a label by its name, and all of them cleared
    seat.tab_to(".filters label:nth-child(2) select")
    seat.press("End")
    page.wait_for_function("() => location.hash.includes('status=cancelled')")
    seat.tab_to("a[href='#/jobs'].button")
    seat.press("Enter")
    page.wait_for_selector(f"[data-job={first}]")
    seat.tab_to("input[placeholder='experiment=first']", key="Shift+Tab")
    page.keyboard.type("name=first")
    seat.press("Enter")
    page.wait_for_selector(f"[data-job={first}]")
    assert not page.is_visible(f"[data-job={second}]")
    seat.tab_to("[aria-label='remove the filter name=first']")
    seat.press("Enter")
    page.wait_for_selector(f"[data-job={second}]")

    # two trainings side by side
    for job in (second, first):
        seat.tab_to(f"[data-job={job}] input[type=checkbox]")
        seat.press("Space")
    seat.tab_to(".actions > a[href^='#/compare']", key="Shift+Tab")
    seat.press("Enter")
    page.wait_for_selector("tr.changed:has-text('seed')")

    # a job, by the form
    seat.tab_to("nav a[href='#/jobs']", key="Shift+Tab")
    seat.press("Enter")
    page.wait_for_selector(f"[data-job={first}]")
    seat.tab_to("a[href='#/jobs/new']")
    seat.press("Enter")
    page.wait_for_selector("#recipe-meta_steps")
    seat.tab_to("#recipe-meta_steps")
    seat.press("Control+a")
    page.keyboard.type("77")
    page.wait_for_selector(".price .stat:has-text('memory')")
    seat.press("Enter")
    page.wait_for_selector("main .head button:has-text('Cancel')")
    posted = seat.api.get("/jobs?limit=1").json()["data"][0]
    assert posted["spec"]["recipe"]["meta_steps"] == 77
    assert len(seat.api.get("/jobs").json()["data"]) == 5, "two trainings, measured; and asking for a price queues none"

    # Escape leaves it running, with the focus where it was; then it is cancelled
    seat.tab_to("main .head button.danger")
    seat.press("Enter")
    page.wait_for_selector("dialog[open]")
    seat.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert seat.api.get(f"/jobs/{posted['id']}").json()["status"] == "queued"
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    seat.press("Enter")
    page.wait_for_selector("dialog[open] .primary:focus")
    seat.press("Enter")
    page.wait_for_selector(".status.cancelled")

    # an alias, from the first version to the second
    optimizer = seat.api.get("/optimizers/quadratic@1/record").json()["id"]
    seat.api.put(
        "/families/quadratic/aliases/prod", json={"optimizer": optimizer}, headers={"If-None-Match": "*"}
    ).raise_for_status()
    seat.tab_to("nav a[href='#/optimizers']", key="Shift+Tab")
    seat.press("Enter")
    page.wait_for_selector("a[href$='quadratic@2']")
    seat.tab_to("a[href$='quadratic@2']")
    seat.press("Enter")
    page.wait_for_selector("button:has-text('Move here')")
    seat.tab_to("td .actions > button.small:not(.danger)")
    seat.press("Enter")
    page.wait_for_selector("dialog[open] .primary:focus")
    seat.press("Enter")
    page.wait_for_selector("td:has-text('this one')")
    assert seat.api.get("/families/quadratic/aliases/prod").json()["version"] == 2
    assert seat.wrong == []


def test_twenty_jobs_stream_into_one_page_on_postgres(postgres_seat: Seat) -> None:
    """A list that follows them by few short requests, over a broken connection too; a stream only while one is seen."""
    seat, page = postgres_seat, postgres_seat.page
    bodies = [{"kind": "meta_train", "family": "quadratic", "seed": seed} for seed in range(RUNNING)]
    workers = [seat.worker(seat.api.post("/jobs", json=body).json()["id"]) for body in bodies]
    for worker in workers:
        worker.record(worker.metrics(*range(1, 30)))
        worker.progress(29)
    open_now: set[Any] = set()
    most, requests = 0, 0

    def begun(request: Any) -> None:
        nonlocal most, requests
        open_now.add(request)
        most, requests = max(most, len(open_now)), requests + 1

    def ended(request: Any) -> None:  # Playwright writes attributes on its handlers, which a method of a set has not
        open_now.discard(request)

    page.on("request", begun)
    for event in ("requestfinished", "requestfailed"):
        page.on(event, ended)
    page.goto(seat.url)
    page.fill("#key input", seat.token)
    page.click("#key button")
    page.wait_for_function(f"() => document.querySelectorAll('[data-job] polyline').length === {RUNNING}")
    most, requests, began = 0, 0, time.monotonic()
    for place, worker in enumerate(workers):
        worker.progress(500 + place)
    told = (
        "() => [...document.querySelectorAll('[data-job]')].filter(row => /5[01]\\d of/.test(row.textContent)).length"
    )
    page.wait_for_function(f"() => ({told})() === {RUNNING}")
    took = time.monotonic() - began
    assert most <= 4, "browsers open six connections to a server"
    assert requests <= 4 + 2 * took, "and not one request a job"

    # the network goes, the jobs go on, the network is back
    page.context.set_offline(True)
    page.wait_for_selector(".banner")
    for place, worker in enumerate(workers):
        worker.progress(700 + place)
    page.context.set_offline(False)
    page.wait_for_function(f"() => ({told.replace('5[01]', '7[01]')})() === {RUNNING}")
    page.wait_for_selector(".banner", state="detached")

    # a job's own view holds one stream, lets go of it while its tab is hidden, and misses nothing
    worker = workers[0]
    seat.go(f"jobs/{worker.job_id}")
    page.wait_for_selector(".uplot canvas")
    worker.publish(worker.metrics(*range(30, 41)))
    page.wait_for_function("() => document.querySelector('.u-series .u-value').textContent === '35'")
    assert len([each for each in open_now if "/events" in each.url]) == 1
    page.evaluate(HIDE, True)
    for _ in range(100):
        if any("/events" in each.url for each in open_now):
            page.wait_for_timeout(100)
    assert not [each for each in open_now if "/events" in each.url]
    later = worker.metrics(*range(41, 51))
    worker.publish(later)
    worker.record(*worker.sent)
    page.evaluate(HIDE, False)
    page.wait_for_function("() => document.querySelector('.u-series .u-value').textContent === '45'")
    assert seat.wrong == []
    for each in workers:
        each.close()


HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
  document.dispatchEvent(new Event('visibilitychange'));
}"""
