"""A sweep in this process alone: its trials one after the other, without a store, a queue or a worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from app.jobs.sweeps.proposals import plan
from app.store.sweeps import Trial
from models.meta_train import TrainingResult, meta_train
from models.spec import MetaTrainSpec, SweepSpec
from models.training.selection import shortfall


def searched_here(spec: SweepSpec, data_dir: Path) -> tuple[list[Trial], list[bytes]]:
    """All trials as they end, and the weights of each."""
    trials: list[Trial] = []
    weights: list[bytes] = []
    while not (wanted := plan(spec, trials)).ended:
        for each in wanted.proposals:
            trials.append(_begun(each.number, each.rung, dict(each.values)))
        for number in range(len(weights), len(trials)):
            training = next(each.training for each in wanted.proposals if each.number == number)
            result = trained_here(training, data_dir)
            poor = shortfall(result.validation_score, result.standing_still, training.recipe)
            trials[number] = replace(
                trials[number], status="succeeded", score=result.validation_score, automatic=poor is None
            )
            weights.append(result.weights)
    return trials, weights


def trained_here(spec: MetaTrainSpec, data_dir: Path) -> TrainingResult:
    *_, result = meta_train(spec, data_dir=data_dir, threads=1)
    assert isinstance(result, TrainingResult)
    return result


def _begun(number: int, rung: int, values: dict[str, object]) -> Trial:
    return Trial(number, rung, values, "", "running", None, None, None, False, None)
