"""What HTTP promises of every representation: ETag, 304, If-Match, Range, If-Range, Vary, Content-Location, HEAD."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import pytest

from tests.app.api.shelf import OTHER_WEIGHTS, Shelf
from workshop.working import WEIGHTS

SAFETENSORS, JSON, MARKDOWN = "application/vnd.safetensors", "application/json", "text/markdown; charset=utf-8"
FOREVER, ASK = "private, max-age=31536000, immutable", "private, no-cache"


@dataclass(frozen=True)
class Representation:
    path: str  # {first}, {second}, {training}, {evaluation}: fields of the shelf
    media_type: str
    accept: str | None = None
    cache_control: str = ASK
    location: str | None = None  # Content-Location
    strong: bool = True
    ranges: bool = False
    negotiated: bool = True  # by Accept; otherwise the address has one representation


def curve(media_type: str, accept: str | None = None, query: str = "") -> Representation:
    return Representation(f"/jobs/{{training}}/curve{query}", media_type, accept, strong=False)


def report(job: str, media_type: str, accept: str | None = None) -> Representation:
    location = "/jobs/{evaluation}/report"
    return Representation(f"/jobs/{{{job}}}/report", media_type, accept, strong=False, location=location)


def anatomy(reference: str, media_type: str) -> Representation:
    location = "/optimizers/{first}/anatomy"
    path = f"/optimizers/{reference}/anatomy"
    return Representation(path, media_type, media_type, location=location, strong=False)


def weights(reference: str, cache_control: str, optimizer: str) -> Representation:
    return Representation(
        f"/optimizers/{reference}", SAFETENSORS, None, cache_control, f"/optimizers/{{{optimizer}}}", ranges=True
    )


def weights_at(place: str, cache_control: str, optimizer: str) -> Representation:
    location = f"/optimizers/{{{optimizer}}}/weights"
    return Representation(
        f"/optimizers/{place}", SAFETENSORS, "text/html", cache_control, location, ranges=True, negotiated=False
    )


def alone(path: str, media_type: str, location: str | None = None, *, strong: bool = True) -> Representation:
    """At an address of its own: asked for by a client that accepts something else."""
    return Representation(path, media_type, "video/mp4", location=location, strong=strong, negotiated=False)


ALL = [
    weights("{first}", FOREVER, "first"),
    weights("quadratic@2", FOREVER, "second"),
    weights("quadratic@latest", ASK, "second"),
    weights("quadratic@best", ASK, "first"),
    weights("quadratic@for-representations", ASK, "second"),
    Representation("/optimizers/quadratic@1", JSON, JSON, location="/optimizers/{first}"),
    Representation("/optimizers/quadratic@latest", JSON, JSON, location="/optimizers/{second}"),
    Representation("/optimizers/{first}/card", MARKDOWN, location="/optimizers/{first}/card"),
    Representation("/optimizers/quadratic@best/card", MARKDOWN, location="/optimizers/{first}/card"),
    Representation(
        "/optimizers/quadratic@1/card", "text/plain; charset=utf-8", "text/plain", location="/optimizers/{first}/card"
    ),
    curve(JSON),
    curve(JSON, query="?max_points=10"),
    curve("text/csv; charset=utf-8", "text/csv"),
    curve("application/octet-stream", "application/octet-stream"),
    curve("image/png", "image/png"),
    report("evaluation", JSON),
    report("training", JSON),
    report("evaluation", "text/html; charset=utf-8", "text/html"),
    report("evaluation", "image/png", "image/png"),
    anatomy("{first}", JSON),
    anatomy("quadratic@best", "image/svg+xml"),
    anatomy("quadratic@1", "image/png"),
    weights_at("{first}/weights", FOREVER, "first"),
    weights_at("quadratic@2/weights", FOREVER, "second"),
    weights_at("quadratic@best/weights", ASK, "first"),
    alone("/optimizers/quadratic@latest/record", JSON, "/optimizers/{second}/record"),
    alone("/optimizers/quadratic@best/card.md", MARKDOWN, "/optimizers/{first}/card.md"),
    alone("/optimizers/{first}/card.txt", "text/plain; charset=utf-8", "/optimizers/{first}/card.txt"),
    alone("/jobs/{training}/curve.json?max_points=10", JSON, strong=False),
    alone("/jobs/{training}/curve.csv", "text/csv; charset=utf-8", strong=False),
    alone("/jobs/{training}/curve.bin", "application/octet-stream", strong=False),
    alone("/jobs/{training}/curve.png", "image/png", strong=False),
    alone("/jobs/{training}/report.json", JSON, "/jobs/{evaluation}/report.json", strong=False),
    alone("/jobs/{training}/report.html", "text/html; charset=utf-8", "/jobs/{evaluation}/report.html", strong=False),
    alone("/jobs/{evaluation}/report.png", "image/png", "/jobs/{evaluation}/report.png", strong=False),
    alone("/optimizers/{first}/anatomy.json", JSON, "/optimizers/{first}/anatomy.json", strong=False),
    alone("/optimizers/{first}/anatomy.svg", "image/svg+xml", "/optimizers/{first}/anatomy.svg", strong=False),
    alone("/optimizers/{first}/anatomy.png", "image/png", "/optimizers/{first}/anatomy.png", strong=False),
    Representation("/families", JSON),
    Representation("/families/quadratic", JSON),
    Representation("/families/quadratic/aliases/for-representations", JSON),
]


@pytest.fixture(scope="module", autouse=True)
def _alias(shelf: Shelf) -> None:
    path = "/families/quadratic/aliases/for-representations"
    made = shelf.api.put(path, json={"optimizer": "quadratic@2"}, headers={"If-None-Match": "*"})
    assert made.status_code == 201


@dataclass(frozen=True)
class Asking:
    """A client that accepts one representation."""

    api: httpx.Client
    accept: str

    def get(self, path: str, headers: Sequence[tuple[str, str]] = (), method: str = "GET") -> httpx.Response:
        return self.api.request(method, path, headers=[("Accept", self.accept), *headers])


Each = tuple[Representation, Asking, str]
_wholes: dict[tuple[str, str], httpx.Response] = {}


@pytest.fixture(params=ALL, ids=lambda each: f"{each.path} {each.accept or ''}".strip())
def each(request: pytest.FixtureRequest, shelf: Shelf) -> Each:
    """A representation, a client that accepts it, and its path."""
    represented: Representation = request.param
    return represented, Asking(shelf.api, represented.accept or "*/*"), represented.path.format(**vars(shelf))


def whole_of(each: Each) -> httpx.Response:
    """All of it, asked for once; with a range where those are ignored."""
    represented, client, path = each
    if (path, client.accept) not in _wholes:
        _wholes[path, client.accept] = client.get(path, () if represented.ranges else [("Range", "bytes=3-9")])
    return _wholes[path, client.accept]


def test_its_headers_say_what_it_is_and_how_to_keep_it(each: Each, shelf: Shelf) -> None:
    represented, client, path = each
    answer = whole_of(each)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == represented.media_type
    assert answer.headers["Cache-Control"] == represented.cache_control
    assert answer.headers["Vary"] == ("Accept, Accept-Encoding" if represented.negotiated else "Accept-Encoding")
    assert answer.headers["Accept-Ranges"] == ("bytes" if represented.ranges else "none")
    location = represented.location.format(**vars(shelf)) if represented.location else None
    assert answer.headers.get("Content-Location") == location
    assert answer.headers["ETag"].startswith('"' if represented.strong else 'W/"')
    again = client.get(path)
    assert (again.headers["ETag"], again.content) == (answer.headers["ETag"], answer.content)
    if location is not None:  # it is what it says it is
        there = client.get(location)
        assert (there.content, there.headers["ETag"]) == (answer.content, answer.headers["ETag"])


def test_what_the_caller_has_is_not_sent_again(each: Each) -> None:
    _, client, path = each
    whole = whole_of(each)
    etag = whole.headers["ETag"]
    opaque = etag.removeprefix("W/")
    for condition in (opaque, f"W/{opaque}", f'"other",{etag}', f'W/"a,b", {etag} , "c"', "*"):
        answer = client.get(path, [("If-None-Match", condition)])
        assert (answer.status_code, answer.content) == (304, b""), condition
        for name in ("ETag", "Cache-Control", "Vary", "Content-Location"):
            assert answer.headers.get(name) == whole.headers.get(name), name
        assert "Content-Type" not in answer.headers
        assert client.get(path, [("If-None-Match", condition)], "HEAD").status_code == 304
    two_lines = [("If-None-Match", '"other"'), ("If-None-Match", etag)]
    assert client.get(path, two_lines).status_code == 304
    others = ('"other"', opaque.strip('"'), opaque[:-2] + '"', "", "W/")
    for condition in others:
        assert client.get(path, [("If-None-Match", condition)]).content == whole.content, condition


def test_a_condition_that_is_not_met_is_412(each: Each) -> None:
    represented, client, path = each
    etag = whole_of(each).headers["ETag"]
    assert client.get(path, [("If-Match", "*"), ("If-None-Match", etag)]).status_code == 304
    # the comparison is strong: a weak tag is never met, not even by itself
    met = client.get(path, [("If-Match", f'"x", {etag}'), ("If-None-Match", etag)])
    assert met.status_code == (304 if represented.strong else 412)
    for condition in ('"other"', f"W/{etag.removeprefix('W/')}", "x"):
        refused = client.get(path, [("If-Match", condition), ("If-None-Match", etag)])
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed"), condition
        assert refused.headers["ETag"] == etag


def test_head_has_the_same_headers_and_no_body(each: Each) -> None:
    _, client, path = each
    whole, head = whole_of(each), client.get(path, [("Range", "bytes=0-1")], "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    own = ("x-request-id", "date", "ratelimit")
    expected, found = (
        {name: value for name, value in answer.headers.items() if name not in own} for answer in (whole, head)
    )
    assert found == expected


def test_a_range_gets_a_part_where_parts_are_given_and_the_whole_elsewhere(each: Each) -> None:
    represented, client, path = each
    whole = whole_of(each)
    if not represented.ranges:
        assert (whole.status_code, len(whole.content) > 7) == (200, True)
        assert "Content-Range" not in whole.headers
        return
    part = client.get(path, [("Range", "bytes=3-9")])
    assert (part.status_code, part.content) == (206, whole.content[3:10])
    assert part.headers["Content-Range"] == f"bytes 3-9/{len(whole.content)}"
    assert part.headers["Content-Length"] == "7"
    for name in ("ETag", "Cache-Control", "Vary", "Content-Location", "Content-Type"):
        assert part.headers.get(name) == whole.headers.get(name)
    etag = whole.headers["ETag"]
    for condition, status in (
        (etag, 206),
        (f"W/{etag}", 200),
        ('"other"', 200),
        ("Tue, 24 Nov 2026 12:00:00 GMT", 200),
    ):
        answer = client.get(path, [("Range", "bytes=3-9"), ("If-Range", condition)])
        assert answer.status_code == status, condition
        assert answer.content == (whole.content[3:10] if status == 206 else whole.content)
    # what the caller has counts before what part of it is asked for
    assert client.get(path, [("Range", "bytes=3-9"), ("If-None-Match", etag)]).status_code == 304
    assert client.get(path, [("Range", "bytes=3-9"), ("If-Match", etag)]).status_code == 206
    assert client.get(path, [("Range", "bytes=3-9"), ("If-Match", '"other"')]).status_code == 412
    beyond = client.get(path, [("Range", f"bytes={len(whole.content)}-")])
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["Content-Range"] == f"bytes */{len(whole.content)}"
    assert beyond.headers["Cache-Control"] == "no-store"  # and not what the bytes have
    assert "Content-Location" not in beyond.headers


def test_each_form_has_an_etag_of_its_own(shelf: Shelf) -> None:
    found: dict[str, str] = {}
    for represented in ALL:
        if represented.path.startswith("/jobs"):
            headers = {"Accept": represented.accept or JSON, "If-None-Match": "*"}
            etag = shelf.api.get(represented.path.format(**vars(shelf)), headers=headers).headers["ETag"]
            found.setdefault(etag, represented.path)
    # an address of its own gives the same tag; the report of the training is that of its evaluation, tag and all


@pytest.mark.parametrize(
    ("path", "accept", "address"),
    [
        ("/optimizers/quadratic@1", SAFETENSORS, "/optimizers/quadratic@1/weights"),
        ("/optimizers/quadratic@1", JSON, "/optimizers/quadratic@1/record"),
        ("/optimizers/quadratic@1/card", "text/markdown", "/optimizers/quadratic@1/card.md"),
        ("/optimizers/quadratic@1/card", "text/plain", "/optimizers/quadratic@1/card.txt"),
        ("/jobs/{training}/curve", JSON, "/jobs/{training}/curve.json"),
        ("/jobs/{training}/curve?max_points=10", JSON, "/jobs/{training}/curve.json?max_points=10"),
        ("/jobs/{training}/curve", "text/csv", "/jobs/{training}/curve.csv"),
        ("/jobs/{training}/curve", "application/octet-stream", "/jobs/{training}/curve.bin"),
        ("/jobs/{training}/curve", "image/png", "/jobs/{training}/curve.png"),
        ("/jobs/{training}/report", JSON, "/jobs/{training}/report.json"),
        ("/jobs/{training}/report", "text/html", "/jobs/{training}/report.html"),
        ("/jobs/{evaluation}/report", "image/png", "/jobs/{evaluation}/report.png"),
    ],
)
def test_an_address_of_its_own_gives_what_accept_chooses(shelf: Shelf, path: str, accept: str, address: str) -> None:
    negotiated = shelf.api.get(path.format(**vars(shelf)), headers={"Accept": accept})
    own = shelf.api.get(address.format(**vars(shelf)), headers={"Accept": "text/nothing"})
    assert (negotiated.status_code, own.status_code) == (200, 200)
    assert own.content == negotiated.content
    for name in ("Content-Type", "ETag", "Cache-Control", "X-Points", "Content-Security-Policy", "Accept-Ranges"):
        if name != "Content-Security-Policy" or accept == "text/html":
            assert own.headers.get(name) == negotiated.headers.get(name), name


def test_a_picture_of_the_curve_draws_every_point(shelf: Shelf) -> None:
    refused = shelf.api.get(f"/jobs/{shelf.training}/curve.png?max_points=10")
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "unknown")


def test_the_etag_of_weights_is_their_hash(shelf: Shelf) -> None:
    for reference, content in (("quadratic@1", WEIGHTS), ("quadratic@2", OTHER_WEIGHTS)):
        etag = shelf.api.get(f"/optimizers/{reference}").headers["ETag"]
        assert etag == f'"sha256:{hashlib.sha256(content).hexdigest()}"'


def test_a_download_in_parts_notices_that_the_alias_moved(shelf: Shelf) -> None:
    """Half of one optimizer and half of another would be nobody's weights."""
    api, path = shelf.api, "/families/quadratic/aliases/in-parts"
    api.put(path, json={"optimizer": "quadratic@1"}, headers={"If-None-Match": "*"})
    start = api.get("/optimizers/quadratic@in-parts", headers={"Range": "bytes=0-99"})
    etag = start.headers["ETag"]
    api.put(path, json={"optimizer": "quadratic@2"}, headers={"If-Match": "*"})
    rest = api.get("/optimizers/quadratic@in-parts", headers={"Range": "bytes=100-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (200, OTHER_WEIGHTS)
    strict = api.get("/optimizers/quadratic@in-parts", headers={"Range": "bytes=100-", "If-Match": etag})
    assert strict.status_code == 412
