"""POST /datasets/{dataset}/fetch: a download beside the API, with its progress and its failure in words."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from models.datasets.downloads import Download, State, carry_out, states
from models.errors import DatasetMissing
from models.tasks import data
from models.tasks.data import DataSet, Progress, downloaded, write_atomically
from workshop.keyed import bearing, make_key, with_keys
from workshop.serving import serving

CONTENT = bytes(range(256)) * 2048  # 512 KiB


@contextlib.contextmanager
def host(until: threading.Event) -> Iterator[str]:
    """An HTTP server that sends half of CONTENT, and the rest when it may."""

    class Halting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
            until.wait(30)
            self.wfile.write(CONTENT[len(CONTENT) // 2 :])

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Halting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/numbers"
        server.shutdown()


def published_at(url: str) -> DataSet:
    def place(data_dir: Path) -> Path:
        return data_dir / "datasets" / "numbers" / "numbers.bin"

    def fetch(data_dir: Path, progress: Progress) -> Path:
        content = downloaded(url, "numbers.bin", progress)
        place(data_dir).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place(data_dir), content)
        return place(data_dir).parent

    def check(data_dir: Path) -> None:
        if not place(data_dir).exists():
            raise DatasetMissing("numbers")

    return DataSet("numbers", check, lambda folder: "ready" if place(folder).exists() else "not", fetch=fetch)


def test_a_download_tells_how_far_it_is_and_is_gone_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    with host(go_on) as url:
        one = published_at(url)
        monkeypatch.setattr("models.datasets.downloads.known", lambda: {"numbers": one})
        monkeypatch.setattr("models.datasets.downloads.NOTED_SECONDS", 0.0)
        assert states(tmp_path) == [State("numbers", False, True, False, None)]
        done: list[bool] = []
        thread = threading.Thread(target=lambda: done.append(carry_out(one, tmp_path)))
        thread.start()
        deadline = time.monotonic() + 30
        half = Download("running", "numbers.bin", len(CONTENT) // 2, len(CONTENT))
        while states(tmp_path)[0].download != half:
            assert time.monotonic() < deadline, states(tmp_path)
            time.sleep(0.01)
        go_on.set()
        thread.join(30)
    assert done == [True]
    assert states(tmp_path) == [State("numbers", True, True, False, None)]
    assert (tmp_path / "datasets" / "numbers" / "numbers.bin").read_bytes() == CONTENT


def test_a_download_whose_process_is_gone_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.datasets.downloads.known", lambda: {"numbers": published_at("http://127.0.0.1:9/")})
    folder = tmp_path / "datasets"
    folder.mkdir()
    (folder / ".numbers.lock").touch()  # nobody holds it
    (folder / ".numbers.json").write_text('{"status": "running", "file": "a", "received_bytes": 7}')
    assert states(tmp_path)[0].download == Download("interrupted", "a", 7)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends every request that leaves the machine to a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.mark.usefixtures("no_network")
def test_the_server_fetches_and_says_what_went_wrong(settings: Settings) -> None:
    keyed = with_keys(settings)
    with serving(keyed) as url:
        with bearing(url, make_key(keyed, "submit")) as api:
            assert api.post("/datasets/mnist/fetch").json()["required_scope"] == "admin"
            assert api.get("/datasets/mnist/fetch").json()["download"] is None
        with bearing(url, make_key(keyed, "admin")) as api:
            begun = api.post("/datasets/mnist/fetch")
            assert begun.status_code == 202, begun.text
            assert "mnist-mlp" in begun.json()["families"]
            failed = _ended(api)
            assert failed["status"] == "failed"
            assert data.MNIST_HOSTS[0] in failed["error"]
            assert str(settings.data_dir) not in failed["error"], "callers learn no folders"
            listed = {each["name"]: each for each in api.get("/datasets").json()["built_in"]}
            assert listed["mnist"]["download"] == failed
            assert listed["digits"]["ready"]
            assert api.post("/datasets/digits/fetch").status_code == 200, "it is here"
            refused = api.post("/datasets/cifar10-subset/fetch")
            assert (refused.status_code, refused.json()["code"]) == (409, "not_fetchable")
            assert "data import cifar10-subset FOLDER" in refused.json()["detail"]
            assert api.post("/datasets/customers/fetch").status_code == 404


def _ended(api: httpx.Client) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while True:
        found = api.get("/datasets/mnist/fetch").json()["download"]
        if found is not None and found["status"] != "running":
            return dict(found)
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
