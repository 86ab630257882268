"""The API reference at /docs, as a reader meets it: in a real browser, which may load nothing from anywhere else."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from app.http.problems import CATALOGUE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIETLY = (
    "--no-sandbox",  # as root there is none
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: `apt install chromium` brings it"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIETLY))
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser had to say; a policy that stops something is told here too."""
    return []


@pytest.fixture
def page(browser: Browser, standing_api: httpx.Client, complaints: list[str]) -> Iterator[Page]:
    """The page, with every request that it makes held to its own server."""
    own = urlsplit(str(standing_api.base_url)).netloc
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()

    def heard(message: ConsoleMessage) -> None:
        complaints.append(f"{message.type}: {message.text}")

    def asked(request: Request) -> None:
        if urlsplit(request.url).netloc != own:
            complaints.append(f"loads {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", asked)
    page.goto(str(standing_api.base_url.join("/docs")))
    yield page
    context.close()
    assert not complaints


@in_a_browser
def test_the_search_leaves_what_has_the_words(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("if-match 412")
    expect(page.locator("#aliases_put")).to_be_visible()
    expect(page.locator("#jobs_create")).to_be_hidden()
    expect(page.locator('nav a[href="#aliases_put"]')).to_be_visible()
    expect(page.locator('nav a[href="#jobs_create"]')).to_be_hidden()
    page.keyboard.type(" no-such-word")
    expect(page.locator("#nothing")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#jobs_create")).to_be_visible()
    expect(page.locator("#nothing")).to_be_hidden()


@in_a_browser
def test_a_link_leads_there_also_when_the_search_hides_it(page: Page) -> None:
    page.locator("#search").fill("jobs_create")
    page.locator("#search").fill("POST /keys token")
    page.locator("#keys_create").get_by_role("link", name="invalid_json", exact=True).click()
    expect(page.locator("#problem-invalid_json")).to_be_in_viewport()
    page.evaluate("location.hash = 'schema-Recipe'")
    expect(page.locator("#schema-Recipe")).to_be_in_viewport()
    expect(page.locator("#search")).to_have_value("")


@in_a_browser
def test_the_navigation_follows_the_reader(page: Page) -> None:
    page.locator('nav a[href="#optimizers_get"]').click()
    expect(page.locator("#optimizers_get h3")).to_be_in_viewport()
    expect(page.locator('nav a[href="#optimizers_get"]')).to_have_attribute("aria-current", "location")
    expect(page.locator("nav a[aria-current]")).to_have_count(1)


@in_a_browser
def test_a_command_is_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#optimizers_get").get_by_role("button", name="copy").first.click()
    expect(page.locator("#optimizers_get").get_by_role("button", name="copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#optimizers_get pre.command").first.text_content()
    assert copied.startswith("curl http://127.0.0.1:")


@in_a_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@in_a_browser
def test_without_scripts_the_page_is_whole(browser: Browser, standing_api: httpx.Client) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(str(standing_api.base_url.join("/docs")))
    expect(page.locator("#search")).to_be_hidden()
    expect(page.locator("#jobs_create")).to_be_visible()
    context.close()


def test_every_link_of_the_page_leads_to_a_place_on_it(standing_api: httpx.Client) -> None:
    text = standing_api.get("/docs").text
    places = re.findall(r'\bid="([^"]+)"', text)
    assert len(places) == len(set(places))
    assert {f"problem-{code}" for code in CATALOGUE} <= set(places)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(places)


def test_every_command_that_reads_runs_as_it_stands(standing_api: httpx.Client) -> None:
    """Those that name a job or an optimizer are told that there is none, or none yet: the ids are examples."""
    text = standing_api.get("/docs").text
    shown = re.findall(r'<pre class="command">(curl [^<]*)</pre>', text.replace("&#x27;", "'").replace("&quot;", '"'))
    reading = [
        command
        for command in shown
        if not {"--json", "-X", "--data-binary"} & {*command.split()} and "\n" not in command
    ]
    assert len(reading) > 12
    for command in reading:
        words = shlex.split(command)
        if "-o" in words:
            del words[words.index("-o") :]
        done = subprocess.run(
            [*words, "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout in ("200", "404", "409"), command
        if not any(example in command for example in ("0198f0c", "@", "production", "customers")):
            assert done.stdout == "200", command


def test_the_page_is_not_sent_again_when_it_is_known(standing_api: httpx.Client) -> None:
    tag = standing_api.get("/docs").headers["ETag"]
    assert standing_api.get("/docs", headers={"If-None-Match": tag}).status_code == 304
