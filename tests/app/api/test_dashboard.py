"""The dashboard of a server with keys, in a real browser."""

from __future__ import annotations

import shutil

import pytest

from app.settings import Settings
from app.store.sessions import Database
from workshop.keyed import bearing, make_key, with_keys
from workshop.serving import serving
from workshop.working import Worker, evaluation_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_it_asks_for_a_key_keeps_it_in_the_tab_and_shows_everything_with_it(
    settings: Settings, sqlite_database: Database
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no browser on this machine")
    keyed = with_keys(settings)
    token = make_key(keyed)
    with serving(keyed) as url, bearing(url, token) as api, playwright.sync_playwright() as driver:
        job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "seed": 7}).json()["id"]
        training = Worker(keyed, sqlite_database, job)
        training.record(training.metrics(*range(1, 50)))
        made = training.finish_training()
        training.close()
        assert made.follow_up is not None
        measuring = Worker(keyed, sqlite_database, made.follow_up.id)
        measuring.finish_evaluation(evaluation_result())
        measuring.close()

        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        refused: list[str] = []
        page.on("console", lambda message: "Content Security Policy" in message.text and refused.append(message.text))
        page.on("pageerror", lambda error: refused.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))

        page.goto(url)
        page.wait_for_selector("#key:not([hidden])")
        page.fill("#key input", token[:-4])
        page.click("#key button")
        page.wait_for_function("() => document.querySelector('#problem').textContent.includes('was it cut off')")
        page.fill("#key input", token)
        page.click("#key button")
        page.wait_for_selector("#jobs a")
        page.wait_for_function("() => document.querySelector('#picture img').naturalWidth > 100")
        assert page.is_hidden("#key")
        page.click("text=report")
        page.wait_for_function("() => document.title.includes('quadratic')")
        page.go_back()
        page.wait_for_selector("#jobs a")
        page.click("text=card")
        page.wait_for_function("() => document.body.innerText.includes('# quadratic@1')")
        page.go_back()
        with page.expect_download() as download:
            page.click("text=weights")
        assert download.value.suggested_filename == "quadratic@1.safetensors"
        assert page.evaluate("localStorage.length") == 0
        assert page.evaluate("document.cookie") == ""
        page.click("#forget")
        page.wait_for_selector("#key:not([hidden])")
        assert page.evaluate("sessionStorage.length") == 0
        browser.close()
    assert refused == []
    assert not [address for address in asked if token.rsplit("_", 1)[1] in address]
