"""POST /optimizers: a weights file is kept whole and marked, or nothing of it is; and what users do with it then."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select

from app.settings import Settings
from app.store.sessions import Database
from app.store.tables import OptimizerRow, WeightsRow
from gradsmith.rules.weights_file import split, with_card
from models.families import FAMILIES
from workshop.keyed import bearing, id_of, make_key, with_keys
from workshop.serving import serving
from workshop.weights import weights_file
from workshop.working import Worker, evaluation_result

HERE = weights_file(FAMILIES["quadratic"].recipe.rule.config.plain(), extra={"family": "quadratic"})
OTHER = weights_file({"kind": "lstm", "hidden_size": 4}, extra={"family": "quadratic"}, seed=1)


def bring(api: httpx.Client, content: bytes, **params: Any) -> httpx.Response:
    headers = {"Content-Type": "application/vnd.safetensors"}
    return api.post("/optimizers", params=params, content=content, headers=headers)


def trained(api: httpx.Client, worker: Callable[..., Worker], score: float = 1.0, **job: Any) -> tuple[str, str]:
    """Ids of an optimizer that a job made of the quadratic family's rule, and of its evaluation."""
    made = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "seed": 11} | job).json()["id"]
    cost = {"seconds": 3.0, "gradient_evaluations": 9}
    outcome = worker(made).finish_training(HERE, score, training={"cost": {"training": cost, "selection": cost}})
    assert outcome.optimizer is not None
    assert outcome.follow_up is not None
    return outcome.optimizer.id, outcome.follow_up.id


def named(api: httpx.Client, alias: str, optimizer: str) -> httpx.Response:
    address = f"/families/quadratic/aliases/{alias}"
    return api.put(address, json={"optimizer": optimizer}, headers={"If-None-Match": "*"})


@pytest.mark.both_databases
def test_a_file_with_its_card_comes_back_as_the_same_weights_and_is_marked(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    first, evaluation = trained(api, worker)
    worker(evaluation).finish_evaluation(evaluation_result(verdict="loses"))
    answer = api.get(f"/optimizers/{first}/file")
    content, card = split(answer.content)
    assert content == HERE == api.get(f"/optimizers/{first}").content
    assert answer.headers["ETag"] == f'"sha256:{hashlib.sha256(answer.content).hexdigest()}"'
    assert card is not None
    recipe = FAMILIES["quadratic"].recipe
    assert (card["family"], card["horizon"], card["criterion"]) == ("quadratic", recipe.horizon, recipe.criterion)
    assert card["coordinates"] == FAMILIES["quadratic"].tasks.coordinates_per_task
    assert card["evaluations"][0]["verdict"] == {"final": "loses", "area": "loses"}

    made = bring(api, answer.content, source="the other server", description="quicker")
    assert made.status_code == 201, made.text
    record = made.json()
    assert made.headers["Location"] == f"/optimizers/{record['id']}"
    assert (record["version"], record["job"], record["validation_score"], record["automatic"]) == (2, None, None, False)
    assert record["sha256"] == hashlib.sha256(HERE).hexdigest()
    assert record["description"] == "quicker"
    uploaded = record["uploaded"]
    assert (uploaded["by"], uploaded["source"]) == (None, "the other server")
    assert uploaded["file_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert (uploaded["claims"]["reference"], uploaded["claims"]["validation_score"]) == ("quadratic@1", 1.0)
    assert record["card"]["training"]["cost"]["training"]["seconds"] == 3.0
    assert api.get("/optimizers/quadratic@2").content == HERE
    assert [each["aliases"] for each in api.get("/optimizers").json()["data"]] == [[], ["best", "latest"]]
    again = bring(api, answer.content)
    assert (again.status_code, again.json()["id"]) == (200, record["id"])
    text = api.get("/optimizers/quadratic@2/card").text
    for needed in ("An uploaded optimizer", "> quicker", "from the other server", "nothing of that was checked here"):
        assert needed in text, needed

    job = api.post("/jobs", json={"kind": "evaluate", "optimizer": "quadratic@2"})
    assert job.status_code == 202, job.text
    spec = job.json()["spec"]
    assert (spec["rule"], spec["evaluation"]["horizon"]) == (recipe.rule.model_dump(), recipe.horizon)
    assert named(api, "ours", record["id"]).status_code == 201
    assert api.get("/optimizers/quadratic@ours").content == HERE


def test_a_file_of_another_program_says_its_rule_alone(api: httpx.Client) -> None:
    record = bring(api, OTHER).json()
    assert (record["family"], record["card"]["recipe"]["rule"]["hidden_size"]) == ("quadratic", 4)
    assert record["uploaded"]["claims"] == {"family": "quadratic", "evaluations": [], "recipe_told": False}
    assert "does not say how it was trained" in api.get(f"/optimizers/{record['id']}/card").text
    elsewhere = bring(api, OTHER, family="digits-mlp").json()
    assert (elsewhere["family"], elsewhere["version"]) == ("digits-mlp", 1)
    assert api.post("/jobs", json={"kind": "evaluate", "optimizer": "digits-mlp@1"}).status_code == 202
    nameless = weights_file({"kind": "lstm", "hidden_size": 4})
    assert "send ?family=NAME" in bring(api, nameless).json()["detail"]
    unknown = bring(api, nameless, family="quadratics").json()
    assert (unknown["code"], unknown["suggestion"]) == ("unknown_family", "quadratic")


GOOD = with_card(HERE, {"family": "quadratic", "recipe": FAMILIES["quadratic"].recipe.model_dump(mode="json")})


def carded(**changes: Any) -> bytes:
    return with_card(HERE, {"family": "quadratic"} | changes)


def headed(change: Callable[[dict[str, Any]], Any], content: bytes = HERE) -> bytes:
    """The file with another header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(change(header) or header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def claiming(shape: list[int]) -> bytes:
    def change(header: dict[str, Any]) -> None:
        header["readout.weight"]["shape"] = shape

    return headed(change)


def doubled() -> bytes:
    """The file with a tensor in its header twice: readers may take the one or the other."""
    length = int.from_bytes(HERE[:8], "little")
    text = HERE[8 : 8 + length].rstrip().replace(b'"readout.bias":', b'"readout.bias":{},"readout.bias":')
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + HERE[8 + length :]


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes"),
    "text": (b"a poem about optimizers", "not a safetensors file"),
    "cut in its header": (GOOD[:100], "truncated"),
    "cut in its numbers": (GOOD[:-5], "truncated or too long"),
    "bytes appended": (GOOD + b"12345678", "truncated or too long"),
    "a bit flipped": (GOOD[:-7] + bytes([GOOD[-7] ^ 1]) + GOOD[-6:], "not those that were written"),
    "another's card": (carded().replace(hashlib.sha256(HERE).hexdigest().encode(), b"0" * 64), "that of other weights"),
    "a tensor told twice": (doubled(), "not written as Gradsmith writes it"),
    "a shape without end": (claiming([2**60]), "has shape [1152921504606846976]"),
    "a header that is all": ((900_000).to_bytes(8, "little") + b"{" + b"[" * 899_999, "no JSON"),
    "a header of gigabytes": ((2**40).to_bytes(8, "little") + HERE[8:], "truncated"),
    "a header of megabytes": (headed(lambda header: header | {"x": "y" * 1_000_001}), "1,000,000 are read"),
    "a surplus tensor": (
        headed(lambda header: header | {"z": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        "left over: z",
    ),
    "not finite": (weights_file(extra={"family": "quadratic"}, readout_bias=np.array([np.nan], "f4")), "NaN"),
    "an unknown rule": (
        headed(lambda header: header | {"__metadata__": {"gradsmith": '{"format_version":2,"rule":{"kind":"magic"}}'}}),
        "unknown kind of rule 'magic'",
    ),
    "another program's": (headed(lambda header: {**header, "__metadata__": {}}), "not one of Gradsmith's"),
    "a card of another rule": (
        carded(recipe=FAMILIES["quadratic"].recipe.model_dump(mode="json") | {"rule": {"kind": "lstm", "layers": 3}}),
        "that of another optimizer",
    ),
    "a card of an unreadable recipe": (carded(recipe={"horizon": "long"}), "horizon"),
    "a card of foreign tasks": (carded(overrides={"moons": 3}), "do not fit quadratic here"),
    "a card with a NUL": (carded(training={"note": "a\0b"}), "NUL"),
    "a card without end": (carded(training={"list": [0] * 30_000}), "20,000 values"),
    "a card of odd costs": (carded(training={"cost": {"training": {"seconds": "long"}}}), "cost"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_leaves_nothing_and_says_why(api_kept: tuple[httpx.Client, Database], what: str) -> None:
    api, database = api_kept
    content, said = DAMAGED[what]
    answer = bring(api, content)
    assert (answer.status_code, answer.json()["code"]) == (422, "optimizer_refused"), answer.text
    assert said in answer.json()["detail"]
    assert counted(database) == (0, 0)


def counted(database: Database) -> tuple[int, int]:
    """Optimizers and weights that are stored."""
    with database.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(row)) for row in (OptimizerRow, WeightsRow))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def api_kept(migrated_sqlite: Any, tmp_path_factory: pytest.TempPathFactory, standing_redis_url: str) -> Any:
    """A server that takes 1 MB in all, for requests that leave nothing."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copy(migrated_sqlite, folder / "gradsmith.db")
    settings = Settings(
        data_dir=folder, database_url=None, redis_url=standing_redis_url, optimizer_limit_bytes=2_000_000,
        body_timeout_seconds=1.0, dispatch_interval_seconds=5.0,
    )  # fmt: skip
    with (
        serving(settings) as url,
        httpx.Client(base_url=url, timeout=30) as client,
        Database(settings.resolved_database_url) as database,
    ):
        yield client, database


def test_what_breaks_off_stalls_or_is_too_large_leaves_nothing(api_kept: tuple[httpx.Client, Database]) -> None:
    api, database = api_kept
    large = bring(api, b"\0" * 2_000_001)
    assert (large.status_code, large.json()["limit_bytes"]) == (413, 2_000_000)
    assert bring(api, HERE, sha256="0" * 64).json()["code"] == "optimizer_refused"
    assert api.post("/optimizers", content=HERE, headers={"Content-Type": "text/html"}).status_code == 415
    where = urlsplit(str(api.base_url))
    head = f"POST /optimizers HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/octet-stream\r\n"
    head += f"Content-Length: {len(HERE)}\r\n\r\n"
    for waits in (False, True):
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as connection:
            connection.sendall(head.encode() + HERE[:1000])
            if waits:
                assert b" 408 " in connection.recv(4096).partition(b"\r\n")[0]
    assert counted(database) == (0, 0)


def test_who_brought_it_is_its_key_and_other_workspaces_do_not_see_it(app_settings: Settings) -> None:
    keyed = with_keys(app_settings)
    ours, theirs = make_key(keyed), make_key(keyed, workspace="theirs")
    with serving(keyed) as url, bearing(url, ours) as api, bearing(url, theirs) as others:
        record = bring(api, HERE).json()
        assert record["uploaded"]["by"] == id_of(ours)
        address = f"/optimizers/{record['id']}"
        assert others.get(address).status_code == others.delete(address).status_code == 404
        assert others.patch(address, json={"archived": True}).status_code == 404
        with bearing(url, make_key(keyed, "read")) as reader:
            assert bring(reader, HERE).status_code == reader.delete(address).status_code == 403


@pytest.mark.both_databases
def test_optimizers_are_described_archived_and_deleted(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    first, evaluation = trained(api, worker, 1.0)
    best, _ = trained(api, worker, 0.5)
    made = bring(api, OTHER).json()["id"]
    assert api.patch(f"/optimizers/{made}", json={"description": "from afar"}).json()["description"] == "from afar"
    assert api.patch(f"/optimizers/{made}", json={"descripton": "x"}).json()["code"] == "invalid_request"
    archived = api.patch("/optimizers/quadratic@best", json={"archived": True}).json()
    assert (archived["id"], archived["aliases"], archived["archived_at"] is None) == (best, [], False)
    assert api.get("/optimizers/quadratic@best/record").json()["id"] == first
    assert api.get("/optimizers/quadratic@latest/record").json()["id"] == first
    assert [each["id"] for each in api.get("/optimizers").json()["data"]] == [made, first]
    assert len(api.get("/optimizers", params={"archived": "true"}).json()["data"]) == 3
    assert api.get(f"/optimizers/{best}").content == HERE
    assert api.patch(f"/optimizers/{best}", json={"archived": False}).json()["aliases"] == ["best", "latest"]

    refused = api.delete(f"/optimizers/{first}")
    assert (refused.status_code, refused.json()["code"]) == (409, "optimizer_needed")
    assert f"the queued job {evaluation}" in refused.json()["detail"]
    worker(evaluation).finish_evaluation(evaluation_result())
    assert f"the evaluation {evaluation}" in api.delete(f"/optimizers/{first}").json()["detail"]
    alias = named(api, "far", made)
    assert "the alias quadratic@far" in api.delete(f"/optimizers/{made}").json()["detail"]
    api.delete("/families/quadratic/aliases/far", headers={"If-Match": alias.headers["ETag"]})
    assert api.delete(f"/optimizers/{made}").status_code == 204
    for gone in (made, "quadratic@3"):
        assert "It was deleted on" in api.get(f"/optimizers/{gone}").json()["detail"]
    assert api.delete(f"/optimizers/{made}").status_code == 404
    assert bring(api, OTHER).json()["version"] == 4, "a version is never given twice"
