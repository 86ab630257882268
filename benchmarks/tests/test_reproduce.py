"""`./run reproduce` on a small experiment, through the service: interrupted, taken up again, measured and written.

The numbers on the page are compared with runs that this file makes itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import select

import gradsmith
import migrations
from app.settings import Settings
from app.store.sessions import Database
from app.store.tables import JobRow
from benchmarks.reproduce import figures, main, page, protocol, results, tables
from benchmarks.reproduce.budgets import Budget
from benchmarks.reproduce.desk import LABEL, Desk
from benchmarks.reproduce.experiments import EXPERIMENTS
from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.baselines import DEFAULT_TUNED, TUNED
from models.families import FAMILIES
from models.rollout import Learned, Sample, curves, run
from models.spec import Split
from models.tasks.catalogue import open_for_testing
from models.tuning import Tuned
from workers.run import run_job
from workshop.services import NoServer, ValkeyServer
from workshop.serving import serving

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]

PAIR = ("ours, hyper", "ours, hyper, plain sum of losses")
QUADRATICS = replace(next(each for each in EXPERIMENTS if each.name == "quadratics"), against=(PAIR,))
HORIZON, TEST_TASKS, SEEDS = 20, 16, (0, 1)
TINY = Budget(
    "short",
    "tiny",
    2,
    recipes={
        "quadratics": {
            "meta_steps": 6, "tasks": 4, "horizon": HORIZON, "unroll_steps": 10, "validation_tasks": 4,
            "validation_interval": 2, "pool": 2, "patience": None,
        }
    },
    evaluation={
        "search": "halving", "test_tasks": TEST_TASKS, "tuning_tasks": 4, "horizon": HORIZON, "untuned": [],
        "bootstrap_samples": 200,
    },
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """first: the ids of the jobs that were posted before the service stopped; weights: by variant and seed"""

    folder: Path
    said: list[str]
    first: set[str]
    jobs: dict[str, Any]
    weights: dict[tuple[str, int], bytes]
    found: dict[str, Any]

    @property
    def text(self) -> str:
        return (self.folder / "README.md").read_text()


@contextmanager
def desk(settings: Settings, said: list[str], commit: str) -> Iterator[Desk]:
    """The service in this process, without a worker: `Working` does the jobs."""
    with serving(settings) as url, gradsmith.Client(url) as client:
        yield Desk(client, said.append, commit)


class Working:
    """A worker in a thread of this process, which runs what is queued, oldest first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        with Database(self._settings.resolved_database_url) as database:
            while not self._stop.wait(0.05):
                with database.read() as session:
                    waiting = select(JobRow.id, JobRow.attempt).where(JobRow.status == "queued").order_by(JobRow.id)
                    queued = session.execute(waiting).all()
                for job, attempt in queued:
                    run_job(job, attempt, settings=self._settings)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("reproduce")
    data = folder / "data"
    data.mkdir()
    torch.set_num_threads(1)
    said: list[str] = []
    try:
        valkey = ValkeyServer()
    except NoServer as error:
        pytest.skip(str(error))
    settings = Settings(data_dir=data, database_url=f"sqlite:///{data / 'gradsmith.db'}", redis_url=valkey.url)
    migrations.upgrade(settings.resolved_database_url)
    with desk(settings, said, "commit-1") as ours:
        for training in QUADRATICS.trainings:
            for seed in SEEDS:
                ours.job("meta_train", TINY.training(QUADRATICS, training, seed), training.name)
        first = {job.id for job in ours.client.jobs.list(limit=100)}
        stale = ours.job("meta_train", {"family": "quadratic", "seed": 9, "evaluate": False}, "renamed since")
        run_job(min(first), 1, settings=settings, preempted=lambda: True)  # it writes a checkpoint and stops
    with desk(settings, said, "commit-2") as ours, Working(settings):
        ours.cancel_all_but(TINY.training(QUADRATICS, each, seed) for each in QUADRATICS.trainings for seed in SEEDS)
        assert ours.client.jobs.get(stale).status == "cancelled"
        main.run(QUADRATICS, TINY, SEEDS, ours, data, folder / "results", folder)
        jobs = {job.id: job for job in ours.client.jobs.list(limit=100) if job.id != stale.id}
        weights = {
            (row["variant"], row["seed"]): ours.client.optimizers.pull(str(jobs[row["job"]].optimizer), card=False)
            for row in results.read(folder / "results")["quadratics"]["panels"][0]["rows"]
        }
    yield Ran(folder, said, first, jobs, weights, results.read(folder / "results")["quadratics"])
    valkey.close()


def test_what_was_begun_before_an_interruption_is_not_begun_again(ran: Ran) -> None:
    trainings = [job for job in ran.jobs.values() if job.kind == "meta_train"]
    assert {job.id for job in trainings} == ran.first
    assert ran.jobs[min(ran.first)].attempt == 2, "the interrupted one went on"
    assert len(ran.first) == len(QUADRATICS.trainings) * len(SEEDS)
    assert {job.metadata["commit"] for job in trainings} == {"commit-1"}
    assert len({job.metadata[LABEL] for job in ran.jobs.values()}) == len(ran.jobs)
    assert ran.found["commits"] == ["commit-1", "commit-2"]


def test_progress_is_told_all_along(ran: Ran) -> None:
    for job in ran.jobs.values():
        assert any(job.metadata["name"] in line and "succeeded" in line for line in ran.said)
    assert any("ours is" in line and "the test is opened" in line for line in ran.said)


def test_the_test_is_opened_when_every_variant_is_trained_and_ours_is_chosen(ran: Ran) -> None:
    trained = [job for job in ran.jobs.values() if job.kind == "meta_train"]
    measured = [job for job in ran.jobs.values() if job.kind == "evaluate"]
    assert max(job.finished_at for job in trained) < min(job.created_at for job in measured)
    opening = json.loads((ran.folder / "data" / "opened-quadratics-short.json").read_text())
    assert opening["at"] <= min(job.created_at for job in measured).strftime("%Y-%m-%d %H:%M:%S UTC")
    assert set(opening["named"]) == {each.name for each in QUADRATICS.trainings}
    scores = {
        each.name: np.median([row["score"] for row in ran.found["trainings"] if row["variant"] == each.name])
        for each in QUADRATICS.trainings
        if each.row == "ours"
    }
    assert opening["chosen"] == min(scores, key=scores.__getitem__)


SPEC = FAMILIES["quadratic"].tasks


def last_five(contender: Any) -> np.ndarray[Any, Any]:
    """Each test task's, of a run made here."""
    torch.set_num_threads(1)
    family, sample = open_for_testing(SPEC), Sample(Split.TEST, 0, 0, TEST_TASKS)
    losses = curves(run(contender, family, sample, HORIZON)).losses.double().numpy()
    assert losses.shape == (HORIZON + 1, TEST_TASKS)
    return losses[-5:].mean(axis=0)  # type: ignore[no-any-return]


def learned(ran: Ran, variant: str, seed: int) -> np.ndarray[Any, Any]:
    rule = rule_weights.loads(ran.weights[variant, seed])
    backend = backend_for(rule, torch.float32, torch.device("cpu"), parts=SPEC.parts())
    return last_five(Learned(backend, rests=True, horizon=HORIZON))


def ends_of(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> Any:
    """The 95 % interval of the ratio of means, over resampled pairs of losses."""
    drawn = np.random.default_rng(0).integers(0, TEST_TASKS, (2000, TEST_TASKS))
    ends = np.percentile(first[drawn].mean(axis=1) / second[drawn].mean(axis=1), [2.5, 97.5])
    return pytest.approx(ends.tolist(), rel=0.25)


def test_ratios_are_of_the_mean_over_the_last_five_steps_of_the_same_test_tasks(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    means = {}
    for name, each in panel["baselines"].items():
        tuned = each["tuned"]
        rate, schedule = tuned["learning_rate"]["final"], tuned["schedule"]["final"]
        means[name] = last_five(Tuned(TUNED[name], rate, schedule, HORIZON))
    best = min(means, key=lambda name: means[name].mean())
    assert len(panel["rows"]) == len(QUADRATICS.trainings) * len(SEEDS)
    for row in panel["rows"]:
        own, told = learned(ran, row["variant"], row["seed"]), row["best_baseline"]["final"]
        assert told["baseline"] == best
        assert told["ratio_of_means"] == pytest.approx(own.mean() / means[best].mean(), rel=1e-3)
        assert told["share_won"] == pytest.approx(np.mean(own < means[best]))
        assert told["ratio_interval"] == ends_of(own, means[best])


def test_one_variant_is_compared_with_another_on_the_same_tasks(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    assert [(row["variant"], row["other"], row["seed"]) for row in panel["against"]] == [
        (*PAIR, seed) for seed in SEEDS
    ]
    for row in panel["against"]:
        own, others = (learned(ran, name, row["seed"]) for name in PAIR)
        told = row["final"]
        assert told["ratio_of_means"] == pytest.approx(own.mean() / others.mean(), rel=1e-3)
        assert told["share_won"] == pytest.approx(np.mean(own < others), abs=1 / TEST_TASKS), "a report has six digits"
        assert told["ratio_interval"] == ends_of(own, others)
        assert f"{told['ratio_of_means']:.3f} [" in ran.text.split("One variant against another")[1]


def test_the_best_of_the_papers_baselines_is_named_where_it_is_not_the_best_of_all(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    means = {name: panel["baselines"][name]["final"]["mean"] for name in ("sgd", "nag", "rmsprop", "adam")}
    best = min(means, key=means.__getitem__)
    for row in panel["rows"]:
        told = row["papers_baseline"]
        assert told["baseline"] == best
        assert told["ratio_of_means"] == pytest.approx(row["final"]["mean"] / means[best], rel=1e-4)
        assert told["verdict"] in ("wins", "ties", "loses")
    rows = [row | {"papers_baseline": told | {"baseline": "sgd"}} for row in panel["rows"]]
    found = ran.found | {"panels": [panel | {"rows": rows}]}
    shown = tables.against_the_papers(QUADRATICS, found)
    assert len(shown) == 2 + len(QUADRATICS.trainings)
    assert "quadratics, against SGD" in shown[2]
    same = [row | {"papers_baseline": told | {"baseline": row["best_baseline"]["final"]["baseline"]}} for row in rows]
    assert tables.against_the_papers(QUADRATICS, ran.found | {"panels": [panel | {"rows": same}]}) == []


def test_baselines_are_the_whole_tuned_tier_inside_their_grids(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    assert set(panel["baselines"]) == set(DEFAULT_TUNED)
    assert {name: each["edges"] for name, each in panel["baselines"].items()} == {name: [] for name in DEFAULT_TUNED}


def test_the_page_shows_every_variant_and_every_seed_and_a_picture(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    for row in panel["rows"]:
        assert row["variant"] in ran.text
        assert f"{tables.ratio(row, 'final'):.3f}" in ran.text
    assert (ran.folder / "figure-4.png").read_bytes().startswith(b"\x89PNG")
    assert "![Quadratic functions and MNIST](figure-4.png)" in ran.text
    assert "`./run reproduce quadratics --budget short --seeds 2`" in ran.text
    before = ran.text
    page.write(ran.folder / "results", ran.folder)
    assert ran.text == before, "the page is a function of its results"


def test_a_variant_that_is_named_after_the_opening_is_marked(ran: Ran, tmp_path: Path) -> None:
    path = ran.folder / "data" / "opened-quadratics-short.json"
    (tmp_path / path.name).write_text(path.read_text())
    same = protocol.opened(QUADRATICS, TINY, [], tmp_path, now="2999")
    assert same.late == []
    other = Budget("short", "", 2, recipes={"quadratics": {"meta_steps": 7}})
    late = protocol.opened(QUADRATICS, other, [], tmp_path, now="2999")
    assert set(late.late) == {each.name for each in QUADRATICS.trainings}
    assert late.chosen == same.chosen, "what was chosen stays: the test is known by now"
    shown = tables.ratios(QUADRATICS, ran.found | {"opening": {"late": late.late, "chosen": late.chosen}})
    assert sum("named after the test was opened" in line for line in shown) == len(QUADRATICS.trainings)


def test_a_seed_that_diverged_is_shown_and_counts_as_the_worst(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    rows = json.loads(json.dumps(panel["rows"]))
    for row in rows:
        if row["variant"] == ran.found["opening"]["chosen"]:
            row["best_baseline"]["final"] |= {"ratio_of_means": None, "ratio_interval": [None, None]}
    found = ran.found | {"panels": [panel | {"rows": rows}]}
    [line] = [each for each in tables.ratios(QUADRATICS, found) if f"**{found['opening']['chosen']}**" in each]
    assert line.count("diverged") == 1 + 3 * len(SEEDS)
    assert tables.targets(QUADRATICS, found)[0].count("missed") == 2


def test_what_is_asked_of_the_area_and_of_each_seed_is_judged(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    chosen = ran.found["opening"]["chosen"]

    def line(verdicts: Sequence[str], area: float, bound: float) -> str:
        rows = [json.loads(json.dumps(row)) for row in panel["rows"] if row["variant"] == chosen]
        for row, verdict in zip(rows, verdicts, strict=True):
            row["best_baseline"]["final"]["verdict"] = verdict
            row["best_baseline"]["area"]["ratio_of_means"] = area
        asked = replace(
            QUADRATICS, panels=(replace(QUADRATICS.panels[0], wins=True, area=bound, aim=None, least=None),)
        )
        [told] = tables.targets(asked, ran.found | {"panels": [panel | {"rows": rows}]})
        return told

    assert "Aim, each seed wins: reached. Area 0.900; at most 1: reached." in line(["wins", "wins"], 0.9, 1.0)
    assert "Aim, each seed wins: missed (ties 1, wins 1)." in line(["wins", "ties"], 0.9, 1.0)
    assert "Area 1.300; at most 1: missed by 30 %." in line(["wins", "wins"], 1.3, 1.0)


def test_the_area_names_its_own_best_baseline_and_who_loses_pays_nothing_back(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    rows = json.loads(json.dumps(panel["rows"]))
    for row in rows:
        row["break_even"], best = 7, row["best_baseline"]
        best["final"] |= {"baseline": "adam", "verdict": "loses" if row["row"] == "paper" else "wins"}
        best["area"]["baseline"] = "rmsprop"
    found = ran.found | {"panels": [panel | {"rows": rows}]}
    assert all(" of RMSprop | " in each for each in tables.ratios(QUADRATICS, found)[2:])
    [paid] = tables.tuning(QUADRATICS, found)[2:]
    assert "the paper's method: never" in paid
    assert f"{PAIR[0]}: 7" in paid


def test_the_figure_over_sizes_has_a_panel_for_each_depth(ran: Ran) -> None:
    [panel] = ran.found["panels"]
    sizes = [[5], [20], [5, 5], [20, 20]]
    found = {"panels": [panel | {"overrides": {"hidden": hidden}} for hidden in sizes]}
    one, two = (
        figures.sizes({"panels": found["panels"][:count]}, {"ours, hyper"}, "title", "subtitle") for count in (2, 4)
    )
    width = [int.from_bytes(picture[16:20]) for picture in (one, two)]
    assert width[1] == 2 * width[0]
