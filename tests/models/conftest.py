"""Small jobs that end in a second, and one torch thread, as a worker has."""

from __future__ import annotations

import pytest
import torch

from models.families import FAMILIES
from models.families.recipes import PAPER
from models.spec import EvaluateSpec, MetaTrainSpec, Resources, overridden
from tests.models.small_style import art_data, art_source  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stats():
    """scipy's, imported where it is used: at the top of a file, every process that collects the tests would wait."""
    from scipy import stats

    return stats


@pytest.fixture
def training_spec():
    """Builds a short meta-training job with the paper's recipe; keywords change it."""

    def build(family="quadratic", seed=0, **recipe):
        small = {
            "meta_steps": 24,
            "horizon": 20,
            "unroll_steps": 5,
            "tasks": 8,
            "validation_tasks": 8,
            "validation_interval": 8,
            "meta_learning_rate": 0.01,
        }
        spec = FAMILIES[family]
        return MetaTrainSpec(
            family=spec,
            seed=seed,
            recipe=overridden(PAPER[family], small | recipe),
            evaluate=True,
            evaluation=spec.evaluation,
            resources=Resources(),
        )

    return build


@pytest.fixture(scope="session")
def evaluation_spec():
    """Builds a short evaluation job; keywords change its plan."""

    def build(family="quadratic", seed=0, **plan):
        small = {"horizon": 20, "test_tasks": 16, "tuning_tasks": 8, "bootstrap_samples": 200}
        spec = FAMILIES[family]
        return EvaluateSpec(
            optimizer="opt_test",
            family=spec,
            seed=seed,
            evaluation=overridden(spec.evaluation, small | plan),
            resources=Resources(),
        )

    return build
