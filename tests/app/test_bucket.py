"""Users' data sets in a bucket of a real server process: whole or not at all, once, and never lost to a race."""

from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.cli.datasets import Table as Chosen
from app.cli.datasets import _bring
from app.doctor import Outcome, Patient, tables
from app.settings import Settings
from app.store import datasets as store
from app.store.errors import DatasetExists, DatasetNeeded, DatasetNotFound
from app.store.families import DeclaredFamilies
from app.store.sessions import Database
from models.datasets.arrival import Arrival
from models.datasets.blobs import BLOBS, Blobs, blobs_of
from models.datasets.bucket import BucketBlobs, Place
from models.datasets.inspection import inspected
from models.datasets.loading import load
from models.errors import BlobsUnavailable, DatasetCorrupt, DatasetMissing
from models.families.regression import RegressionSpec
from models.spec import FamilySpec, Recipe
from models.table_spec import Table
from tests.app.buckets import breaking, client, keys
from tests.workers.harness import running_worker, wait_for_status
from workshop import services
from workshop.serving import serving

pytest.importorskip("boto3", reason="the extra s3 is not installed: pip install boto3")

ROWS = "\n".join(f"c{n % 20},{n % 7},{n % 5},{(n % 7) - 2 * (n % 5)}" for n in range(400))
TABLE = f"who,a,b,y\n{ROWS}\n".encode()
SHA256 = hashlib.sha256(TABLE).hexdigest()


@pytest.fixture(scope="module")
def bucket_server() -> Iterator[services.BucketServer]:
    try:
        server = services.BucketServer()
    except services.NoServer as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def bucket(bucket_server: services.BucketServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, in which this process keeps data sets below `shop`."""
    name = f"data-{uuid.uuid4().hex[:12]}"
    client(bucket_server.url).create_bucket(Bucket=name)
    for variable, value in bucket_server.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv(BLOBS, f"s3://{name}/shop")
    return name


def brought(database: Database, blobs: Blobs, name: str = "shop", content: bytes = TABLE) -> Table:
    with blobs.arriving() as arrival:
        arrival.write(content)
        arrival.flush()
        found = inspected(arrival.path, target="y", group="who")
        row = store.keep(database, blobs, arrival, found, name, "default").row
    with database.read() as session:
        return store.Datasets(session).table(row.name)


def family(table: Table) -> FamilySpec:
    return FamilySpec(name="shops", title="", description="", tasks=RegressionSpec(dataset=table), recipe=Recipe())


def test_a_table_is_trained_on_by_a_worker_that_has_only_the_bucket(
    bucket: str, bucket_server: services.BucketServer, settings: Settings, sqlite_database: Database, tmp_path: Path
) -> None:
    here = settings.model_copy(update={"blobs": os.environ[BLOBS]})
    elsewhere = here.model_copy(update={"data_dir": tmp_path / "elsewhere", "warm_spare": False})
    elsewhere.data_dir.mkdir()
    with serving(here) as url, httpx.Client(base_url=url, timeout=60) as api:
        roles = {"target": "y", "group": "who"}
        for name in ("shop", "twin"):
            made = api.post(
                "/datasets", params={"name": name} | roles, content=TABLE, headers={"Content-Type": "text/csv"}
            )
            assert made.status_code == 201, made.text
        assert keys(bucket_server.url, bucket) == [f"shop/blobs/{SHA256}"]
        assert [path for path in (here.data_dir / "datasets").rglob("*") if path.is_file()] == []
        tasks = {"kind": "regression", "dataset": "shop", "loss": "squared"}
        recipe = {"meta_steps": 3, "horizon": 5, "unroll_steps": 5, "tasks": 2, "validation_tasks": 2, "starts": 1}
        assert api.post("/families", json={"name": "shops", "tasks": tasks}).status_code == 201
        asked = {"kind": "meta_train", "family": "shops", "evaluate": False, "recipe": recipe}
        job = api.post("/jobs", json=asked)
        assert job.status_code == 202, job.text
        with running_worker(elsewhere, tmp_path):
            ended = wait_for_status(sqlite_database, job.json()["id"], "succeeded", "failed")
        assert (ended.status, ended.status_reason) == ("succeeded", None)
        fetched = elsewhere.data_dir / "datasets" / ".fetched" / SHA256
        assert fetched.read_bytes() == TABLE
        assert api.delete("/datasets/twin").status_code == 204
        assert api.delete("/datasets/shop").json()["code"] == "dataset_needed"
        assert keys(bucket_server.url, bucket) == [f"shop/blobs/{SHA256}"]


def test_an_upload_whose_bucket_is_away_or_breaks_off_is_answered_503_and_leaves_nothing(
    bucket: str, bucket_server: services.BucketServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = TABLE + b"c0,1,1,1\n" * 3_000

    def post(name: str, content: bytes) -> httpx.Response:
        headers = {"Content-Type": "text/csv"}
        return api.post("/datasets", params={"name": name, "target": "y"}, content=content, headers=headers)

    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as api:
        assert post("whole", TABLE).status_code == 201
        with breaking(bucket_server.url, 20_000) as broken:
            monkeypatch.setenv("AWS_ENDPOINT_URL", broken)
            refused = post("cut", large)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        for answer in (refused, post("away", large), api.delete("/datasets/whole")):
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable"), answer.text
            assert "The bucket of the data sets cannot be used" in answer.json()["detail"]
        assert [each["name"] for each in api.get("/datasets").json()["data"]] == ["whole"]
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket_server.url)
        s3 = client(bucket_server.url)
        assert keys(bucket_server.url, bucket) == [f"shop/blobs/{SHA256}"]
        assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
        assert [path for path in (settings.data_dir / "datasets").rglob("*") if path.is_file()] == []
        assert post("cut", large).status_code == 201
        assert api.delete("/datasets/whole").status_code == 204
        assert keys(bucket_server.url, bucket) == [f"shop/blobs/{hashlib.sha256(large).hexdigest()}"]


def test_what_is_refused_after_it_was_sent_is_removed_and_what_another_name_has_is_not(
    bucket: str, bucket_server: services.BucketServer, settings: Settings, database: Database
) -> None:
    blobs = blobs_of(settings.data_dir)
    brought(database, blobs)
    with pytest.raises(DatasetExists):
        brought(database, blobs, "shop", TABLE + b"c0,1,1,1\n")
    assert keys(bucket_server.url, bucket) == [f"shop/blobs/{SHA256}"]
    brought(database, blobs, "twin")
    store.forget(database, blobs, "shop", "default")
    assert blobs.holds(SHA256)
    store.forget(database, blobs, "twin", "default")
    assert keys(bucket_server.url, bucket) == []


@pytest.mark.parametrize("kind", ["bucket", "folder"])
def test_bytes_that_are_removed_while_they_are_brought_again_are_there_at_the_end(
    kind: str, request: pytest.FixtureRequest, settings: Settings, database: Database
) -> None:
    if kind == "bucket":
        request.getfixturevalue("bucket")
    blobs = blobs_of(settings.data_dir)
    brought(database, blobs)
    prepare = blobs.prepare

    def removed_in_between(arrival: Arrival) -> None:
        prepare(arrival)
        blobs.prepare = prepare  # type: ignore[method-assign]
        assert blobs.holds(SHA256)
        store.forget(database, blobs, "shop", "default")
        assert not blobs.holds(SHA256)

    blobs.prepare = removed_in_between  # type: ignore[method-assign]
    brought(database, blobs, "twin")
    assert blobs.local(SHA256).read_bytes() == TABLE


def test_a_data_set_is_not_removed_beneath_a_family_that_is_being_declared(
    settings: Settings, database: Database
) -> None:
    blobs = blobs_of(settings.data_dir)
    table = brought(database, blobs)
    raised: list[BaseException] = []

    def forget() -> None:
        try:
            store.forget(database, blobs, "shop", "default")
        except DatasetNeeded as error:
            raised.append(error)

    removing = threading.Thread(target=forget)
    with database.write() as session:
        store.Datasets(session).hold([table])
        removing.start()
        removing.join(0.3)
        assert removing.is_alive()
        assert DeclaredFamilies(session).add(family(table))
    removing.join(30)
    assert len(raised) == 1
    assert blobs.holds(SHA256)
    another = brought(database, blobs, "another", TABLE + b"c0,1,1,1\n")
    store.forget(database, blobs, "another", "default")
    with database.write() as session, pytest.raises(DatasetNotFound):
        store.Datasets(session).hold([another])


def test_a_damaged_object_is_named_and_the_same_file_mends_it(
    bucket: str, bucket_server: services.BucketServer, settings: Settings, sqlite_database: Database
) -> None:
    blobs = blobs_of(settings.data_dir)
    table = brought(sqlite_database, blobs)
    s3, key = client(bucket_server.url), f"shop/blobs/{SHA256}"
    s3.put_object(Bucket=bucket, Key=key, Body=TABLE.replace(b"c1,", b"c2,", 1))
    with pytest.raises(DatasetCorrupt, match=f"data set shop .* object {key} of the bucket {bucket} is damaged"):
        load(settings.data_dir, table, as_classes=False)
    brought(sqlite_database, blobs)
    path = blobs.local(SHA256)
    path.write_bytes(b"damaged")  # what was fetched is not believed either
    assert blobs.local(SHA256).read_bytes() == TABLE
    assert len(load(settings.data_dir, table, as_classes=False).target) == 400
    s3.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(DatasetMissing, match=rf"is not in the bucket s3://{bucket}/shop\. Bring the same file again"):
        load(settings.data_dir, table.model_copy(update={"name": "lost"}), as_classes=False)


def test_a_file_is_fetched_once_by_threads_that_want_it_together_and_never_held_in_memory(
    bucket: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = blobs_of(settings.data_dir)
    assert bucket in blobs.place
    fetched: list[str] = []
    fetch = BucketBlobs._fetch
    monkeypatch.setattr(BucketBlobs, "_fetch", lambda self, *given: (fetched.append(given[0]), fetch(self, *given)))
    tracemalloc.start()
    with blobs.arriving() as arrival:
        for _ in range(24):
            arrival.write(os.urandom(1 << 20))
        blobs.prepare(arrival)
        sha256 = arrival.sha256
    threads = [threading.Thread(target=blobs.local, args=(sha256,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fetched == [sha256]
    assert most < 16 * 2**20, f"{most / 2**20:.0f} MiB were held for a file of 24"


def test_the_doctor_tries_the_bucket_and_compares_it_with_the_database(
    bucket: str,
    bucket_server: services.BucketServer,
    settings: Settings,
    sqlite_database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said() -> list[tuple[Outcome, str]]:
        return [(each.outcome, f"{each.found} -> {each.advice}") for each in tables.users_tables(Patient(settings))]

    brought(sqlite_database, blobs_of(settings.data_dir))
    ((outcome, words),) = said()
    assert (outcome, f"s3://{bucket}/shop can be used and holds 1 files" in words) == (Outcome.OK, True)
    s3 = client(bucket_server.url)
    assert keys(bucket_server.url, bucket) == [f"shop/blobs/{SHA256}"]  # its own probe is gone
    s3.put_object(Bucket=bucket, Key="shop/blobs/" + "0" * 64, Body=b"x")
    s3.delete_object(Bucket=bucket, Key=f"shop/blobs/{SHA256}")
    (lost, lost_words), (left, left_words) = said()
    assert (lost, left) == (Outcome.FAIL, Outcome.WARN)
    assert "the file of shop (workspace default) is not there" in lost_words
    assert f"aws s3 rm s3://{bucket}/shop/blobs/{'0' * 64}" in left_words
    monkeypatch.setenv(BLOBS, f"s3://no-{bucket}")
    ((outcome, words),) = said()
    assert (outcome, "make the bucket" in words) == (Outcome.FAIL, True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    ((outcome, words),) = said()
    assert (outcome, "is its server running" in words) == (Outcome.FAIL, True)


def test_the_command_line_keeps_a_table_in_the_bucket_and_says_when_that_is_away(
    bucket: str,
    bucket_server: services.BucketServer,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "shop.csv"
    file.write_bytes(TABLE)
    chosen = Chosen("shop", file, "y", "who", (), "default")
    _bring(settings, chosen)
    assert keys(bucket_server.url, bucket) == [f"shop/blobs/{SHA256}"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SystemExit):
        _bring(settings, chosen)
    assert f"The bucket s3://{bucket}/shop cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["data", "s3://", "s3://UPPER/x", "s3://data//x", "file:///data", "s3://data/a b"])
def test_a_setting_that_names_no_bucket_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="must be s3://BUCKET"):
        Settings(blobs=wrong)


def test_a_place_is_read_with_and_without_a_prefix() -> None:
    assert str(Place.named("s3://data")) == "s3://data"
    assert Place.named("s3://data/a/b/").key("0") == "a/b/blobs/0"
    assert Settings(blobs="").blobs is None


@pytest.fixture(autouse=True)
def nothing_is_read_twice() -> Callable[[], None]:
    load.cache_clear()
    return load.cache_clear


def test_a_bucket_without_boto3_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    with pytest.raises(BlobsUnavailable, match=r"pip install 'gradsmith-server\[s3\]'"):
        BucketBlobs(Place.named("s3://data"), tmp_path).holds(SHA256)
