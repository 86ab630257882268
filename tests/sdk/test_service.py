"""The client against the real service: what a user does, from the first call to a trained model."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

import gradsmith
from gradsmith import errors, retries
from gradsmith.events import DoneEvent, MetricsEvent, StatusEvent
from gradsmith.rules.weights import dumps, loads, metadata
from gradsmith.rules.weights_file import split
from gradsmith.types import Job
from tests.sdk.blocking import Made
from workshop.cutting import cutting_proxy

pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]


@pytest.fixture
def client(service_url: str, made: Made) -> Iterator[gradsmith.Client]:
    """Both kinds, against the same service."""
    with made(service_url) as client:
        yield client


def test_a_finished_job_tells_its_whole_story(client: gradsmith.Client, trained: Job) -> None:
    events = list(client.jobs.stream(trained))
    assert isinstance(events[0], StatusEvent)
    points = [step for event in events if isinstance(event, MetricsEvent) for step in event.step]
    assert points == list(range(1, 21))
    done = events[-1]
    assert isinstance(done, DoneEvent)
    assert (done.status, done.optimizer) == ("succeeded", trained.optimizer)
    ids = [event.id for event in events if event.id]
    assert len(ids) == len(set(ids))
    middle = ids[len(ids) // 2]
    rest = [event.id for event in client.jobs.stream(trained, after=middle) if event.id]
    assert rest == ids[ids.index(middle) + 1 :]
    assert list(client.jobs.stream(trained, after=ids[-1])) == []


def test_a_retried_job_is_streamed_to_the_end_of_its_last_attempt(client: gradsmith.Client) -> None:
    recipe = {"meta_steps": 2000, "tasks": 8, "validation_tasks": 4, "horizon": 20}
    job = client.jobs.create(family="quadratic", seed=1, recipe=recipe, evaluate=False)
    for _ in range(2):
        client.jobs.cancel(job)
        while not client.jobs.get(job).finished:
            time.sleep(0.05)
        attempt = client.jobs.retry(job).attempt
    client.jobs.cancel(job)
    ended = [event for event in client.jobs.stream(job) if isinstance(event, DoneEvent)]
    assert [event.id.partition("-")[0] for event in ended if event.id] == ["1", "2", "3"]
    assert attempt == 3


def test_a_hundred_cuts_lose_and_double_nothing(
    service: gradsmith.Client, made: Made, trained: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In headers, in bodies, and before anything was said. `./run bench reconnects` does it with a running job."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    expected = [(event.kind, event.id, event.data) for event in service.jobs.stream(trained) if event.id]
    lives = itertools.cycle([30, 700, 0, 1100, 5000, 180, 900, 2500, 400])
    with cutting_proxy(service.base_url, lambda: next(lives)) as proxy, made(proxy.url) as client:
        while proxy.connections <= 100:
            told = [(event.kind, event.id, event.data) for event in client.jobs.stream(trained) if event.id]
            assert told == expected


def test_the_curve_is_what_was_streamed(client: gradsmith.Client, trained: Job) -> None:
    streamed = [event for event in client.jobs.stream(trained) if isinstance(event, MetricsEvent)]
    curve = client.jobs.curve(trained)
    assert curve.step == tuple(step for event in streamed for step in event.step)
    assert curve.loss == tuple(loss for event in streamed for loss in event.loss)
    assert [number for number, value in zip(curve.step, curve.validation, strict=True) if value is not None] == [10, 20]
    assert len(client.jobs.curve(trained, max_points=5).step) < 20
    assert curve.to_csv() == httpx.get(f"{client.base_url}/jobs/{trained.id}/curve.csv", trust_env=False).text


def test_weights_come_as_they_were_registered(client: gradsmith.Client, trained: Job, tmp_path: Path) -> None:
    assert trained.optimizer is not None
    record = client.optimizers.get(trained.optimizer)
    assert record.job == trained.id
    content = client.optimizers.pull(trained.optimizer, card=False)
    assert content == client.optimizers.pull(record.reference, card=False)
    assert content == split(client.optimizers.pull(record.reference, tmp_path / "rule.safetensors").read_bytes())[0]
    assert hashlib.sha256(content).hexdigest() == record.sha256
    assert len(content) == record.size_bytes
    described = metadata(content)
    assert described["rule"]["kind"] == trained.spec["recipe"]["rule"]["kind"]
    assert dumps(loads(content), described["extra"]) == content
    assert record.id in [found.id for found in client.optimizers.list(family="quadratic")]


def test_an_alias_is_moved_by_whoever_saw_it_last(client: gradsmith.Client, trained: Job) -> None:
    assert trained.optimizer is not None
    made = client.aliases.create("quadratic", "prod", trained.optimizer)
    with pytest.raises(errors.PreconditionFailed, match="names opt_"):
        client.aliases.create("quadratic", "prod", trained.optimizer)
    moved = client.aliases.move(made, "quadratic@latest")
    assert moved == client.aliases.get("quadratic", "prod")
    for refused in (
        lambda: client.aliases.move(made, "quadratic@latest"),
        lambda: client.aliases.delete(made),
    ):
        with pytest.raises(errors.PreconditionFailed):
            refused()
    record = client.optimizers.get("quadratic@prod")
    assert (record.id, "prod" in record.aliases) == (moved.optimizer, True)
    assert record.id in [found.id for found in client.optimizers.list(alias="prod")]
    assert client.optimizers.list(alias="prod", tags={"nobody": None}).data == ()
    [listed] = client.aliases.list("quadratic")
    client.aliases.delete(listed)
    with pytest.raises(errors.NotFound):
        client.optimizers.get("quadratic@prod")


@pytest.mark.filterwarnings("ignore::gradsmith.OutsideTrainingWarning")  # the fixture's rule learned for seconds
def test_a_reference_is_all_that_a_training_loop_needs(
    client: gradsmith.Client, service_url: str, trained: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSMITH_URL", service_url)
    reference = client.optimizers.get(str(trained.optimizer)).reference
    thetas = []
    for optimizer_of in (
        lambda theta: gradsmith.LearnedOptimizer([theta], reference),
        lambda theta: gradsmith.LearnedOptimizer([theta], str(trained.optimizer), client=client),
    ):
        theta = torch.nn.Parameter(torch.ones(10))
        optimizer = optimizer_of(theta)
        for _ in range(5):
            optimizer.zero_grad()
            theta.square().sum().backward()
            optimizer.step()
        thetas.append(theta.detach())
    assert torch.equal(*thetas)
    assert not torch.equal(thetas[0], torch.ones(10))


def test_the_evaluation_follows_by_itself(client: gradsmith.Client, trained: Job) -> None:
    assert trained.evaluation is not None
    evaluation = client.jobs.wait(trained.evaluation, timeout_seconds=100)
    assert (evaluation.kind, evaluation.parent, evaluation.optimizer) == ("evaluate", trained.id, trained.optimizer)
    report = client.jobs.report(evaluation)
    plan = evaluation.spec["evaluation"]
    assert set(report.optimizers) == {"learned", *plan["baselines"], *plan["untuned"]}
    assert set(report.verdict.values()) <= {"wins", "ties", "loses"}
    assert client.jobs.report_png(evaluation).startswith(b"\x89PNG")
    assert "<html" in client.jobs.report_html(evaluation)
    with pytest.raises(errors.ResponseError) as caught:
        client.jobs.curve(evaluation)
    assert caught.value.code == "no_curve"


def test_jobs_are_found_by_label_and_family(client: gradsmith.Client, trained: Job) -> None:
    assert [job.id for job in client.jobs.list(kind="meta_train", metadata={"made_for": "tests"})] == [trained.id]
    page = client.jobs.list(limit=1)
    assert page.has_more
    assert [job.id for job in client.jobs.list(limit=1, after=page.next).data] != [job.id for job in page.data]
    assert list(client.jobs.list(family="mnist-mlp")) == []


def test_a_running_job_is_followed_live_and_cancelled(client: gradsmith.Client) -> None:
    job = client.jobs.create(family="quadratic", seed=2, recipe={"meta_steps": 100_000}, evaluate=False)
    with pytest.raises(errors.NotReady) as caught:
        client.jobs.curve(job)
    assert caught.value.progress is not None
    seen = 0
    status = ""
    asked = 0.0
    for event in client.jobs.stream(job):
        if isinstance(event, MetricsEvent) and not asked:
            seen += len(event.step)
            if seen >= 3:
                assert client.jobs.get(job).status == "running"
                assert client.jobs.cancel(job).status == "cancelling"
                asked = time.monotonic()
        if isinstance(event, DoneEvent):
            status = event.status
    assert status == "cancelled"
    assert time.monotonic() - asked < 20
    with pytest.raises(errors.JobFailed, match="cancelled"):
        client.jobs.wait(job)
    assert client.jobs.cancel(job).status == "cancelled"  # again is no error


def test_one_key_is_one_job(client: gradsmith.Client, trained: Job) -> None:
    small = {"family": "quadratic", "recipe": {"meta_steps": 5}, "evaluate": False, "seed": 3}
    first = client.jobs.create(**small, idempotency_key="sdk-tests-one")
    assert client.jobs.create(**small, idempotency_key="sdk-tests-one").id == first.id
    with pytest.raises(errors.InvalidRequest) as caught:
        client.jobs.create(**{**small, "seed": 4}, idempotency_key="sdk-tests-one")
    assert caught.value.code == "idempotency_conflict"
    client.jobs.cancel(first)
    with pytest.raises(errors.Conflict) as refused:
        client.jobs.cancel(trained)  # it has succeeded
    assert refused.value.code == "job_finished"


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"family": "no-such-family"}, "/family"),
        ({"family": "quadratic", "recipe": {"meta_steps": 0}}, "/recipe/meta_steps"),
        ({"family": "quadratic", "recipe": {"colour": 1}}, "/recipe/colour"),
        ({"family": "quadratic", "seed": "one"}, "/seed"),
        ({"kind": "evaluate", "optimizer": "quadratic@999"}, "/optimizer"),
        ({"kind": "bake"}, "/kind"),
    ],
)
def test_what_does_not_fit_is_pointed_at(client: gradsmith.Client, fields: dict[str, object], pointer: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        client.jobs.create(**fields)
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert caught.value.request_id


def test_what_json_cannot_say_is_refused(client: gradsmith.Client) -> None:
    with pytest.raises(errors.InvalidRequest, match="NaN") as caught:
        client.jobs.create(family="quadratic", recipe={"meta_learning_rate": float("nan")})
    assert caught.value.code == "invalid_json"


def test_what_is_not_there_is_not_found(client: gradsmith.Client) -> None:
    for call in (
        lambda: client.jobs.get("job_00000000000000000000000000000000"),
        lambda: client.jobs.get("no such job/../x"),
        lambda: client.optimizers.get("quadratic@999"),
        lambda: client.optimizers.pull("nothing@best"),
        lambda: client.families.get("nothing"),
        lambda: next(client.jobs.stream("job_0")),
    ):
        with pytest.raises(errors.NotFound):
            call()


def test_a_bad_cursor_is_refused(client: gradsmith.Client) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        client.jobs.list(after="garbage")
    assert caught.value.code == "bad_cursor"


def test_families_say_how_they_are_trained(client: gradsmith.Client) -> None:
    names = [family.name for family in client.families.list()]
    assert {"quadratic", "quadratic-uniform", "digits-mlp", "mnist-mlp"} <= set(names)
    family = client.families.get("quadratic")
    assert family.coordinates_per_task == 10
    assert family.recipe["horizon"] == 100
    assert set(family.raw["schemas"]) >= {"tasks", "recipe", "evaluation"}


def test_a_table_of_ones_own_is_brought_listed_and_deleted(client: gradsmith.Client, tmp_path: Path) -> None:
    file = tmp_path / "visits.csv"
    file.write_text("customer,income,churned\n" + "".join(f"c{row % 5},{row},{row % 2}\n" for row in range(20)))
    made = client.datasets.create(file, target="churned", group="customer", inputs=["income"])
    assert (made.name, made.rows, made.inputs, made.classes) == ("visits", 20, ("income",), ("0", "1"))
    assert client.datasets.create(file, target="churned", group="customer", inputs=["income"]) == made
    assert client.datasets.get("visits") == made
    assert "visits" in [each.name for each in client.datasets.list()]
    with pytest.raises(gradsmith.errors.Conflict, match="dataset_exists"):
        client.datasets.create(file, name="visits")
    with pytest.raises(gradsmith.errors.InvalidRequest, match="Did you mean 'churned'"):
        client.datasets.create(file, name="other", target="churn")
    client.datasets.delete("visits")
    with pytest.raises(gradsmith.errors.NotFound, match="no data set 'visits'"):
        client.datasets.get("visits")
