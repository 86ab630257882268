"""The estimate that a job is refused on, against the peak that a process really reaches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.memory import memory_estimate_bytes
from models.spec import BUILT_IN_FAMILIES, MetaTrainSpec, Resources, RuleSpec, overridden

# A worker has its own libraries loaded beside torch; the estimate counts them, this bare process does not.
WORKER_LIBRARIES_BYTES = 60 * 2**20

MEASURED = """
import sys
from models.meta_train import meta_train
from models.spec import MetaTrainSpec
for event in meta_train(MetaTrainSpec.model_validate_json(sys.argv[1])):
    pass
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


def job(family, recipe, tasks):
    spec = BUILT_IN_FAMILIES[family]
    spec = spec.model_copy(update={"tasks": overridden(spec.tasks, tasks)})
    short = {"meta_steps": 2, "validation_interval": 100, "validation_tasks": 1}
    return MetaTrainSpec(
        family=spec,
        seed=0,
        recipe=overridden(spec.recipe, short | recipe),
        evaluate=False,
        evaluation=spec.evaluation,
        resources=Resources(),
    )


def peak_bytes(spec, **environment):
    """What a worker that runs this job reaches, on the backend of `environment`."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, spec.model_dump_json()],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
    )
    return int(done.stdout) + WORKER_LIBRARIES_BYTES


reads_the_peak = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc"
)


@reads_the_peak
def test_the_estimate_is_an_upper_bound_close_to_torchs_peak():
    spec = job("quadratic", {"tasks": 1024, "unroll_steps": 4, "horizon": 4}, {})
    peak = peak_bytes(spec, GRADSMITH_NATIVE="off")
    assert peak <= memory_estimate_bytes(spec) <= 1.3 * peak


@pytest.mark.slow
@reads_the_peak
@pytest.mark.parametrize(
    ("family", "recipe", "tasks"),
    [
        ("quadratic", {}, {}),
        ("quadratic", {"tasks": 16_384}, {}),
        ("quadratic", {"tasks": 4}, {"dimension": 1000}),
        ("digits-mlp", {"tasks": 64}, {}),
        ("digits-mlp", {"rule": {"hidden_size": 64}}, {}),
    ],
    ids=json.dumps,
)
def test_the_estimate_bounds_every_backend_and_is_close_to_torch(family, recipe, tasks):
    spec = job(family, recipe, tasks)
    estimate = memory_estimate_bytes(spec)
    torchs = peak_bytes(spec, GRADSMITH_NATIVE="off")
    assert torchs <= estimate <= 1.3 * torchs
    assert peak_bytes(spec) <= estimate  # the native kernel where there is a compiler


def test_an_evaluation_is_estimated_with_the_rule_that_it_measures(evaluation_spec):
    spec = evaluation_spec("digits-mlp")
    large = spec.model_copy(update={"rule": RuleSpec(hidden_size=256, layers=4)})
    # Four layers of 256 keep 2,048 numbers a coordinate, and a step needs several times that.
    coordinates = 10 * spec.family.tasks.coordinates_per_task
    assert memory_estimate_bytes(large) - memory_estimate_bytes(spec) > 4 * 2048 * coordinates


def test_the_estimate_grows_with_what_a_job_holds():
    def estimate(family="quadratic", recipe=None, tasks=None):
        return memory_estimate_bytes(job(family, recipe or {}, tasks or {}))

    small = estimate()
    assert estimate(recipe={"tasks": 65_536}) > 4 * small
    assert estimate(tasks={"dimension": 1000}) > 2 * small
    assert estimate(recipe={"unroll_steps": 100, "tasks": 4096}) > estimate(recipe={"tasks": 4096})
    assert estimate("mnist-mlp", {"tasks": 65_536}) > 500 * 2**30  # refused on any machine of today
    assert all(memory_estimate_bytes(job(name, {}, {})) < 1.5 * 2**30 for name in BUILT_IN_FAMILIES)
