"""The experiments are jobs that POST would take, and their rules of honesty hold before anything runs."""

from __future__ import annotations

import importlib
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.jobs.kinds import training as training_kind
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.measure import to_the_end
from benchmarks.reproduce import estimate, main, page, protocol
from benchmarks.reproduce.budgets import BUDGETS, known
from benchmarks.reproduce.desk import identity
from benchmarks.reproduce.experiments import EXPERIMENTS, Experiment, Panel, Training, recipe_of_the_paper
from gradsmith.types import Job, Optimizer
from models.baselines import DEFAULT_TUNED, TUNED
from models.baselines.schedules import SCHEDULES
from models.calibration import calibrated
from models.errors import SplitHeldOut
from models.families import FAMILIES, KINDS
from models.halving import tune_by_halving
from models.rollout import Sample, curves, run
from models.spec import EvaluationPlan, MetaTrainSpec, Split, overridden
from models.tasks import images
from models.tasks.catalogue import open_for_testing, open_for_training, open_for_tuning
from models.tasks.data import known as datasets
from models.tasks.randomness import task_seeds
from models.tuning import Tuned, tune
from models.tuning_budget import batches_of

KNOWN = list(known().values())
JOBS = [
    (budget, experiment, each) for budget in BUDGETS.values() for experiment in KNOWN for each in experiment.trainings
]
PANELS = [(budget, each, panel) for budget in BUDGETS.values() for each in KNOWN for panel in each.panels]


def resolved(budget: Any, experiment: Experiment, training: Training) -> MetaTrainSpec:
    body = {"kind": "meta_train", **budget.training(experiment, training, 3)}
    return training_kind.resolved(training_kind.MetaTrainRequest.model_validate(body), None, "auto")


@pytest.mark.parametrize(("budget", "experiment", "training"), JOBS, ids=lambda each: getattr(each, "name", None))
def test_every_training_is_a_job_and_the_papers_is_as_written(budget, experiment, training) -> None:  # type: ignore[no-untyped-def]
    job = resolved(budget, experiment, training)
    assert (job.family.name, job.seed, job.evaluate) == (training.family, 3, False)
    if training.as_written:
        rules = [job.recipe.rule, *job.recipe.rules.values()]
        assert {rule.kind for rule in rules} == {"lstm"}
        assert {rule.input for rule in rules} == {"log_sign"}
        assert (job.recipe.meta_gradient, job.recipe.mixture, job.recipe.on) == ("detached", (), "training")
        sizes = {"validation_tasks", "validation_interval", "meta_steps", "rules"}  # a budget's, and an experiment's
        wanted = recipe_of_the_paper(training.family)
        assert job.recipe.model_dump(exclude=sizes) == wanted.model_dump(exclude=sizes)
        assert set(job.recipe.rules) == set(training.recipe.get("rules", ()))
    else:
        assert job.recipe.meta_gradient == "exact"


@pytest.mark.parametrize("experiment", KNOWN, ids=lambda each: each.name)
def test_an_experiment_has_both_methods_and_its_candidates_are_validated_alike(experiment: Experiment) -> None:
    rows = [each.row for each in experiment.trainings]
    assert rows.count("paper") == 1
    assert "ours" in rows
    assert len({each.name for each in experiment.trainings}) == len(rows)
    for budget in BUDGETS.values():
        ours = [resolved(budget, experiment, each) for each in experiment.trainings if each.row == "ours"]
        assert len({job.recipe.criterion for job in ours}) == 1


@pytest.mark.parametrize(("budget", "experiment", "panel"), PANELS, ids=lambda each: each.name)
def test_every_panel_has_the_whole_tuned_tier_with_schedules(budget, experiment, panel: Panel) -> None:  # type: ignore[no-untyped-def]
    body = budget.evaluation_of(experiment, panel, "opt_x")
    plan: EvaluationPlan = overridden(FAMILIES[body["family"]].evaluation, body["evaluation"])
    others = {"quadratics": (), "art": ("lbfgs",)}.get(experiment.name, ("muon", "soap"))
    assert plan.baselines == (*DEFAULT_TUNED, *others)
    assert plan.schedules == tuple(SCHEDULES)
    assert plan.test_tasks >= 8
    assert "seed" not in body, "all variants are measured on the family's own test tasks"


@pytest.mark.parametrize("experiment", KNOWN, ids=lambda each: each.name)
def test_what_trains_and_selects_cannot_reach_a_test_problem(experiment: Experiment) -> None:
    """Neither by what a family was opened for, nor by any seed: the splits' seeds share no value."""
    for name in experiment.families:
        spec = FAMILIES[name].tasks
        if set(spec.datasets) - {"digits"}:
            continue  # needs data; the class that refuses is the same
        for opened in (open_for_training(spec), open_for_tuning(spec)):
            with pytest.raises(SplitHeldOut, match="test split"):
                opened.sample(Split.TEST, seed=0, trajectory=0, tasks=1)
        highest = {
            split: {seed % 2**64 >> 62 for seed in task_seeds(split, spec.kind, 11, 0, 0, 1000).tolist()}
            for split in Split
        }
        assert not highest[Split.TEST] & (highest[Split.TRAIN] | highest[Split.VALIDATION])


def digits_families() -> list[str]:
    return [name for name, family in FAMILIES.items() if family.tasks.datasets == ("digits",)]


@pytest.mark.parametrize("name", digits_families())
def test_optimizees_train_on_training_images_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every other image blackened a run on test tasks is the same, bit for bit; what is held out is not."""
    spec = FAMILIES[name].tasks
    sample = Sample(Split.TEST, 0, 0, 2)
    adam = Tuned(TUNED["adam"], 0.01, "constant", 4)
    plain = curves(run(adam, open_for_testing(spec), sample, 4, held_out=True))
    load = images.load_images

    def blackened(*arguments: Any, **options: Any) -> dict[Split, images.Images]:
        found = load(*arguments, **options)
        return {
            split: each if split is Split.TRAIN else replace(each, pixels=torch.zeros_like(each.pixels))
            for split, each in found.items()
        }

    module = importlib.import_module(KINDS[spec.kind].tasks.partition(":")[0])
    monkeypatch.setattr(module, "load_images", blackened)
    black = curves(run(adam, open_for_testing(spec), sample, 4, held_out=True))
    assert torch.equal(plain.losses, black.losses)
    assert plain.held_out is not None
    assert black.held_out is not None
    assert not torch.equal(plain.held_out.losses, black.held_out.losses)


def trained(name: str, scores: list[float | None], **recipe: Any) -> list[protocol.Trained]:
    """Seeds of a candidate with these validation scores."""
    spec = resolved(BUDGETS["short"], KNOWN[0], Training(name, "ours", "quadratic", recipe))
    found = []
    for seed, score in enumerate(scores):
        raw: dict[str, Any] = {"id": f"job_{seed}", "kind": "meta_train", "family": "quadratic", "status": "succeeded"}
        job = Job.from_json(raw | {"spec": spec.model_dump(mode="json")})
        record = {"id": "opt_1", "family": "quadratic", "version": 1, "sha256": "", "validation_score": score}
        optimizer = None if score is None else Optimizer.from_json(record)
        found.append(protocol.Trained(Training(name, "ours", "quadratic", recipe), seed, job, optimizer))
    return found


def test_ours_is_the_candidate_with_the_lowest_median_validation_score() -> None:
    steady, lucky = trained("steady", [2.0, 2.1, 2.2]), trained("lucky", [0.1, 3.0, 3.0])
    assert protocol.choose([*lucky, *steady]) == "steady"
    assert protocol.choose([*trained("failed", [None, None, 0.1]), *steady]) == "steady"
    paper = [replace(one, training=replace(one.training, row="paper")) for one in trained("paper", [0.0, 0.0, 0.0])]
    assert protocol.choose([*paper, *steady]) == "steady"
    assert protocol.choose(paper) is None
    with pytest.raises(ValueError, match="one criterion"):
        protocol.choose([*steady, *trained("other", [1.0], objective="area")])


def test_a_budgets_data_set_is_that_of_every_training_and_every_panel() -> None:
    cifar, budget = known()["cifar"], BUDGETS["quick"]
    bodies = [budget.training(cifar, each, 0) for each in cifar.trainings]
    bodies += [budget.evaluation_of(cifar, each, "opt_x") for each in cifar.panels]
    assert {body["tasks"]["dataset"] for body in bodies} == {"cifar10-subset"}
    [sub] = [body for body in bodies if "labels" in body["tasks"]]
    assert sub["tasks"]["labels"] == [5, 6, 7, 8, 9], "a variant keeps its own tasks"
    assert budget.datasets(cifar) == ("cifar10-subset",)
    assert BUDGETS["short"].datasets(cifar) == ("cifar10",)


def test_another_data_set_is_laid_over_an_experiment_and_its_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cifar, budget = known()["cifar"], BUDGETS["short"].on("cifar10-jpeg", known()["cifar"])
    assert budget.datasets(cifar) == ("cifar10-jpeg",)
    assert budget.datasets(known()["mnist"]) == ("mnist",), "the others keep theirs"
    assert set(page.FORMS) == {each.name for each in datasets().values() if each.alternative}, "the page has words"
    command, plain = main.command_of(cifar, budget, 3), main.command_of(cifar, BUDGETS["short"], 3)
    assert command == f"{plain} --dataset cifar10-jpeg"
    assert main.command_of(cifar, BUDGETS["quick"], 1) == "./run reproduce cifar --budget quick --seeds 1"

    assert main.main(["cifar", "--dataset", "cifar10-jpeg", "--data", str(tmp_path)]) == 1
    assert "cifar: not run. The data set cifar10-jpeg is not complete" in capsys.readouterr().out
    assert main.main(["cifar", "quadratics", "--dataset", "cifar11", "--data", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "cifar: not run. It cannot be on 'cifar11': " in said
    assert "'cifar10-jpeg'" in said, "the names that there are"
    assert "quadratics: not run. It cannot be on 'cifar11': Extra inputs are not permitted" in said


@pytest.mark.parametrize(("search", "tasks"), [("halving", 1), ("halving", 4), ("halving", 8), ("full", 4)])
def test_an_estimate_counts_the_runs_that_tuning_makes(search: Any, tasks: int) -> None:
    plan = EvaluationPlan(horizon=10, tuning_tasks=tasks, search=search)
    family, sample = open_for_tuning(FAMILIES["quadratic"].tasks), Sample(Split.VALIDATION, 0, 0, tasks)
    sweep = tune_by_halving if search == "halving" else tune
    tuning = to_the_end(sweep(TUNED["adam"], family, sample, plan.horizon, plan.schedules))
    made = sum(point.tasks for point in tuning.points)
    counted = sum(runs * each for runs, each in batches_of(plan.schedules, search, tasks))
    assert 0.75 * made <= counted <= 1.5 * made


@pytest.mark.long
@pytest.mark.timeout(400)  # it may be the first to need the compiled kernel
def test_an_estimate_is_of_trainings_and_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, budget = known()["quadratics"], BUDGETS["quick"]
    quadratics = replace(whole, trainings=whole.trainings[1:3])  # seconds for each of the pairs
    timed: list[int] = []

    def counting(spec: MetaTrainSpec, **settings: Any) -> Any:
        timed.append(len(spec.evaluation.baselines))
        return calibrated(spec, **settings)

    monkeypatch.setattr(estimate, "calibrated", counting)
    found = estimate.estimate(quadratics, budget, 1, tmp_path)
    assert timed == [0, 0, len(DEFAULT_TUNED), 0], "two trainings; and the panel's baselines, once for both"
    assert found.training > 0
    assert found.minutes(2) == pytest.approx((found.training + found.measuring) / 120)
    again = estimate.estimate(quadratics, budget, 3, tmp_path)
    assert found.measuring < again.measuring < 3 * found.measuring, "the baselines run once for all seeds"


def test_nothing_is_measured_that_was_not_named_first() -> None:
    opening = protocol.Opening("2026", "steady", {"steady": {"digest": "", "at": "2026"}})
    with pytest.raises(ValueError, match="secret was not named before the test"):
        protocol.measure(KNOWN[0], KNOWN[0].panels[0], BUDGETS["short"], trained("secret", [1.0]), opening, None)  # type: ignore[arg-type]


def test_missing_data_is_told_with_the_command_that_brings_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["mnist", "--data", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "mnist: not run. The data set mnist is not complete" in said
    assert f"data import mnist FOLDER --data {tmp_path}" in said


def test_an_experiment_whose_families_are_not_here_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Experiment("absent", "", 7, (), (Panel("", "no-such-family"),))
    monkeypatch.setattr("benchmarks.reproduce.main.EXPERIMENTS", (*EXPERIMENTS, absent))
    assert main.main(["absent", "--data", str(tmp_path)]) == 1
    assert "absent: not run. There is no family no-such-family here." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main.main(["misspelt"])


def test_the_help_of_run_knows_the_options_and_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    command = [ROOT / "run", "reproduce", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with pytest.raises(SystemExit):
        main.main(["--help"])
    own = capsys.readouterr().out
    assert set(re.findall(r"^  (--[\w-]+)", shown, re.M)) == set(re.findall(r"^  (--[\w-]+)", own, re.M))
    assert ", ".join(each.name for each in EXPERIMENTS) in " ".join(shown.split())


def test_a_job_is_another_one_where_its_body_or_its_familys_recipe_is(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"family": "quadratic", "seed": 0}
    first = identity("meta_train", body)
    assert first == identity("meta_train", dict(reversed(body.items())))
    assert first != identity("evaluate", body)
    assert first != identity("meta_train", body | {"seed": 1})
    own = FAMILIES["quadratic"]
    worded = own.model_copy(update={"description": "other words"})
    longer = own.model_copy(update={"recipe": own.recipe.model_copy(update={"meta_steps": 9})})
    monkeypatch.setitem(FAMILIES, "quadratic", worded)
    assert identity("meta_train", body) == first
    monkeypatch.setitem(FAMILIES, "quadratic", longer)
    assert identity("meta_train", body) != first
