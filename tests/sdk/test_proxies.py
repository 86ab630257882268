"""Proxy variables as real machines have them: calls to this machine never leave it, and a variable that cannot be read
matters only where its proxy would be used."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

import gradsmith
from gradsmith import errors
from gradsmith.proxies import is_excepted, is_this_machine

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
EMPTY_PAGE = b'{"data": [], "has_more": false, "next": null}'


class Answering(http.server.ThreadingHTTPServer):
    """Answers every GET with an empty page, as a server does and as a proxy would; remembers the targets."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        targets = self.targets

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                targets.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(EMPTY_PAGE)))
                self.end_headers()
                self.wfile.write(EMPTY_PAGE)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def proxy() -> Iterator[Answering]:
    with Answering() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join(10)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_server_on_this_machine_is_asked_itself(monkeypatch: pytest.MonkeyPatch, proxy: Answering, name: str) -> None:
    with Answering() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv(name, proxy.url)
        with gradsmith.Client(server.url) as client:
            client.families.list()
        server.shutdown()
    assert (server.targets, proxy.targets) == (["/families"], [])


@pytest.mark.parametrize("form", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", " http://me:secret@127.0.0.1:{port} "])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_server_elsewhere_is_asked_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Answering, name: str, form: str
) -> None:
    monkeypatch.setenv(name, form.format(port=proxy.server_port))
    with gradsmith.Client("http://gradsmith.example.org:8000") as client:
        client.families.list()
    assert proxy.targets == ["http://gradsmith.example.org:8000/families"]


UNREADABLE = [
    "ftp://127.0.0.1:9",
    "http://[::1",
    "http://:0x/",
    "://",
    "http://a b:9",
    "http://proxy:port",
    "socks5://p:9",
]


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "HTTPS_PROXY"])
def test_a_proxy_that_is_not_used_may_be_written_in_any_way(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    for url in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"):
        gradsmith.Client(url).close()
    monkeypatch.setenv("NO_PROXY", "example.org")
    gradsmith.Client("https://gradsmith.example.org").close()


def test_a_proxy_that_would_be_used_and_cannot_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "ftp://me:topsecret@proxy.example.org:3128")
    with pytest.raises(ValueError, match=r"https_proxy.*'ftp://proxy.example.org:3128'.*NO_PROXY") as caught:
        gradsmith.Client("https://gradsmith.example.org")
    assert "topsecret" not in str(caught.value)


def test_a_socks_proxy_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)  # as where it is not installed
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(errors.MissingDependency, match=r"ALL_PROXY.*httpx\[socks\].*NO_PROXY"):
        gradsmith.Client("http://gradsmith.example.org")


@pytest.mark.parametrize("entry", ["fd00::/8", "[::1]", "[", "::::", "10.0.0.0/99", "*.", "a:b:c", ",,", "http://x"])
def test_an_entry_of_no_proxy_that_is_none_excepts_nothing_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, proxy: Answering, entry: str
) -> None:
    monkeypatch.setenv("NO_PROXY", f"localhost,{entry}")
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    gradsmith.Client("http://127.0.0.1:9").close()
    with gradsmith.Client("http://gradsmith.example.org") as client:
        client.families.list()
    assert len(proxy.targets) == 1


@pytest.mark.parametrize(
    ("no_proxy", "host", "port"),
    [
        ("*", "anything", 80),
        ("a.example, example.org", "example.org", 80),
        (".example.org", "deep.down.Example.org.", 80),
        ("*.example.org", "x.example.org", 80),
        ("example.org:8000", "example.org", 8000),
        ("10.0.0.0/8", "10.244.0.5", 80),
        ("10.1.2.3:81", "10.1.2.3", 81),
        ("fd00::/8", "fd12::1", 80),
        ("[fd12::1]", "fd12::1", 80),
        ("[fd12::1]:81", "fd12::1", 81),
        ("fd12:0::1", "fd12::1", 80),
    ],
)
def test_what_no_proxy_excepts(no_proxy: str, host: str, port: int) -> None:
    assert is_excepted(host, port, no_proxy)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port"),
    [
        ("", "example.org", 80),
        ("example.org", "badexample.org", 80),
        ("example.org:8000", "example.org", 80),
        ("10.0.0.0/8", "11.0.0.1", 80),
        ("10.0.0.0/8", "10.example.org", 80),
        ("fd00::/8", "2001:db8::1", 80),
        ("[fd12::1]:81", "fd12::1", 80),
    ],
)
def test_what_no_proxy_does_not_except(no_proxy: str, host: str, port: int) -> None:
    assert not is_excepted(host, port, no_proxy)


def test_what_this_machine_is_called() -> None:
    ours = ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "0.0.0.0")
    others = ("example.org", "localhost.example.org", "notlocalhost", "10.0.0.1", "::2", "")
    assert [is_this_machine(host) for host in (*ours, *others)] == [True] * len(ours) + [False] * len(others)
