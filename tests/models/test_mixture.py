"""A rule that is trained on several families."""

from __future__ import annotations

import math

import pytest
import torch

from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.memory import memory_estimate_bytes
from models.meta_train import TrainingResult, TrajectoryEnd, Validated, meta_train
from models.parallel import Alone
from models.rollout import Learned, Sample, curves, run
from models.spec import MetaTrainSpec, Split
from models.tasks.base import Family
from models.tasks.catalogue import open_for_training
from models.training.trainer import Trainer
from models.training.validation import VALIDATION_SEED

WIDE = QuadraticSpec(dimension=7)
SMALL_NETWORKS = MLPSpec(hidden=(4,), batch_size=16, activation="relu")
MIXTURE = [
    {"family": "quadratic", "tasks": WIDE.model_dump(), "weight": 2.0},
    {"family": "digits-mlp", "tasks": SMALL_NETWORKS.model_dump(), "weight": 0.5},
]
SMALL = {"tasks": 2, "validation_tasks": 3, "unroll_steps": 2, "horizon": 4, "mixture": MIXTURE}


@pytest.fixture
def drawn(monkeypatch):
    """Which distribution each trajectory's tasks are of."""
    seen = {}
    original = Family.sample

    def recorded(self, split, **where):
        if split is Split.TRAIN:
            seen[where["trajectory"]] = self.namespace
        return original(self, split, **where)

    monkeypatch.setattr(Family, "sample", recorded)
    return seen


def test_trajectories_are_drawn_from_the_families_by_weight(training_spec, drawn):
    spec = training_spec(**SMALL)
    families = [open_for_training(each.tasks) for each in spec.components]
    pool = Trainer(spec, families, torch.device("cpu"), 1, Alone()).pool
    for number in range(280):
        pool.begun(number)
        pool.keep(())
    counts = [list(drawn.values()).count(family.namespace) for family in families]
    assert sum(counts) == 280
    for count, weight in zip(counts, (1.0, 2.0, 0.5), strict=True):
        assert count == pytest.approx(280 * weight / 3.5, abs=4 * math.sqrt(280 * 0.25))


def test_the_score_is_the_geometric_mean_over_the_families_by_weight(training_spec):
    spec = training_spec(**SMALL, meta_steps=4, validation_interval=4)
    *_, result = meta_train(spec)
    assert isinstance(result, TrainingResult)
    rule = rule_weights.loads(result.weights)
    sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, spec.recipe.validation_tasks)
    score = still = 0.0
    for component, weight in zip(spec.components, (1.0, 2.0, 0.5), strict=True):
        family = open_for_training(component.tasks)
        parts = component.tasks.parts()
        learned = Learned(backend_for(rule, torch.float32, torch.device("cpu"), parts=parts))
        found = curves(run(learned, family, sample, spec.recipe.horizon))
        score += weight / 3.5 * math.log(float(found.area.mean()))
        still += weight / 3.5 * math.log(float(found.losses[0].mean()))
    assert result.validation_score == pytest.approx(math.exp(score), rel=1e-5)
    assert result.standing_still == pytest.approx(math.exp(still), rel=1e-5)
    assert result.summary["cost"]["selection"]["gradient_evaluations"] == 3 * 3 * 5


@pytest.mark.parametrize("rule", [{"kind": "lstm"}, {"kind": "hyper"}], ids=lambda rule: rule["kind"])
def test_a_mixture_in_a_pool_resumes_bit_for_bit(training_spec, rule):
    spec = training_spec(**SMALL, pool=3, meta_steps=16, validation_interval=8, rule=rule)
    whole, checkpoints = [], {}
    for event in meta_train(spec):
        whole.append(event)
        if isinstance(event, TrajectoryEnd):
            checkpoints[event.step] = event.checkpoint()
    for step, content in list(checkpoints.items())[::3]:
        resumed = list(meta_train(spec, resume=content))
        validated = [event for event in whole if isinstance(event, Validated) and event.step > step]
        assert [event for event in resumed if isinstance(event, Validated)] == validated
        assert resumed[-1].weights == whole[-1].weights


def test_several_rules_and_a_mixture_are_refused_in_words(training_spec):
    with pytest.raises(
        ValueError, match="several rules need the parts of one family, and the mixture adds 'quadratic'"
    ):
        training_spec(mixture=MIXTURE, rules={"vector": {"kind": "mlp"}})


def test_a_larger_family_in_the_mixture_is_in_the_memory_that_is_predicted(training_spec):
    def predicted(**recipe):
        return memory_estimate_bytes(training_spec(tasks=64, **recipe))

    large = [{"family": "digits-mlp", "tasks": MLPSpec(hidden=(256, 256)).model_dump(), "weight": 1.0}]
    of_its_own = memory_estimate_bytes(training_spec("digits-mlp", tasks=64).on(MLPSpec(hidden=(256, 256))))
    assert predicted() < predicted(pool=64) < predicted(mixture=large)
    assert of_its_own <= predicted(mixture=large) < 1.3 * of_its_own
    one, two = (predicted(mixture=large, pool=pool) for pool in (1, 2))
    theta = 4 * 64 * MLPSpec(hidden=(256, 256)).coordinates_per_task
    assert two - one > 2 * theta  # theta and its gradient, and what the rule remembers


def test_a_stored_job_says_all_of_its_mixture(training_spec):
    spec = training_spec(mixture=MIXTURE)
    again = MetaTrainSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert [each.tasks for each in again.components] == [spec.family.tasks, WIDE, SMALL_NETWORKS]
