"""The prediction that a job is refused on, against the peak that a process really reaches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gradsmith.rules import LSTMRule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import native_kernel
from gradsmith.rules.kernels.sizes import MOST_HIDDEN, MOST_LAYERS, Sizes
from models import memory
from models.families import FAMILIES
from models.machine import peak_memory_bytes, usable_cpus, usable_memory_bytes
from models.memory import likely_backend, memory_estimate_bytes
from models.rule_spec import RULE_SPECS
from models.spec import Resources, with_tasks
from tests.compiler import no_kernel
from workshop.memory import cases, evaluation, measured, predicted, preview, training

GIB = 2**30

reads_the_peak = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc"
)

FEW = {"validation_tasks": 8, "horizon": 20}
SHORT = FEW | {"tasks": 4096, "unroll_steps": 4}
QUICK = [
    training("quadratics", "quadratic", SHORT),
    pytest.param(
        training("quadratics, mlp rule", "quadratic", SHORT | {"rule": {"kind": "mlp"}}), marks=pytest.mark.slow
    ),
    training(
        "quadratics, mlp rule through torch",
        "quadratic",
        FEW | {"tasks": 4096, "unroll_steps": 4, "rule": {"kind": "mlp", "input": "momenta"}},
    ),
    training("digits MLPs", "digits-mlp", FEW | {"tasks": 16, "horizon": 4, "unroll_steps": 4}),
    evaluation(
        "evaluate", "quadratic", {"horizon": 5, "test_tasks": 8192, "tuning_tasks": 2, "bootstrap_samples": 100}
    ),
    pytest.param(
        preview("preview", "quadratic", horizon=5, tuning_tasks=8192, bootstrap_samples=100), marks=pytest.mark.slow
    ),
]
"""Each is a process that imports torch: the first has a kernel's tape, `evaluate` the curves that a preview has too."""


@pytest.mark.long
@reads_the_peak
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_the_prediction_is_within_a_fifth_of_the_peak(case):
    ran = measured(case)
    assert predicted(case, ran) == pytest.approx(ran.peak_bytes, rel=0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@reads_the_peak
@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.name}, {case.spec.resources.backend}")
def test_the_prediction_is_within_a_fifth_of_the_peak_of_every_kind_of_job(case):
    data = os.environ.get("GRADSMITH_DATA_DIR")
    if "MNIST" in case.name and data is None:
        pytest.skip("GRADSMITH_DATA_DIR names no folder with MNIST")
    ran = measured(case, Path(data) if data else None)
    assert predicted(case, ran) == pytest.approx(ran.peak_bytes, rel=0.2)


def test_what_is_guessed_at_post_is_the_kernel_where_it_fits():
    def guess(rule=None, **resources):
        recipe = {"rule": rule} if rule else {}
        return likely_backend(training("", "quadratic", recipe, **resources).spec)

    assert guess() == "native"
    assert guess({"hidden_size": MOST_HIDDEN, "layers": MOST_LAYERS}) == "native"
    assert guess({"hidden_size": MOST_HIDDEN + 1}) == "torch"
    assert guess(device="gpu") == "torch"
    assert guess(backend="torch") == "torch"
    assert guess(backend="reference") == "reference"
    assert likely_backend(training("", "quadratic").spec, native=False) == "torch"


@pytest.mark.parametrize("steps", [1, 20, 100])
def test_the_kernels_workspace_is_that_of_the_widest_vectors(steps):
    kernel = native_kernel(LSTMRule())
    if isinstance(kernel, Refusal):
        no_kernel(kernel)
    predicted, its_own = memory._workspace(Sizes.fitting(20, 2, "log_sign"), steps), kernel.workspace_bytes(steps)
    assert predicted == its_own if kernel.target.width == 16 else predicted > its_own


@pytest.mark.parametrize("tasks", [128, 1600, 3000, 65_536])
def test_the_tape_is_what_it_says(tasks):
    kernel = native_kernel(LSTMRule())
    if isinstance(kernel, Refusal):
        no_kernel(kernel)
    case = training("", "quadratic", {"tasks": tasks})
    sizes = memory._Sizes(case.spec.family.tasks, ((1.0, case.spec.recipe.rule.config.costs()),), "native", 1)
    tape = kernel.tape(10 * tasks, 20, memory.KEPT_BYTES)
    assert tape is not None
    assert tape.data.numel() * 4 == pytest.approx(memory._buffers(sizes, 10 * tasks, 20), rel=0.01)


def test_each_process_of_a_job_counts_and_so_does_the_worker_that_starts_them():
    alone = memory_estimate_bytes(training("", "quadratic", {"tasks": 4096}).spec)
    two = memory_estimate_bytes(training("", "quadratic", {"tasks": 8192}, processes=2).spec)
    assert two == 2 * alone + memory.WORKER_BYTES + memory._TORCHRUN_BYTES


def test_an_evaluation_is_estimated_with_the_rule_that_it_measures(evaluation_spec):
    spec = evaluation_spec("digits-mlp").model_copy(update={"resources": Resources(backend="torch")})
    large = spec.model_copy(update={"rule": RULE_SPECS["lstm"](hidden_size=256, layers=4)})
    # Four layers of 256 keep 2,048 numbers a coordinate, and a step needs twice that again.
    coordinates = 10 * spec.family.tasks.coordinates_per_task
    assert memory_estimate_bytes(large) - memory_estimate_bytes(spec) > 2 * 4 * 2048 * coordinates


def test_an_evaluation_is_estimated_with_the_baseline_that_remembers_most(evaluation_spec):
    """L-BFGS keeps ten pairs, the last gradient and the last move of each of 814,090 coordinates."""
    tasks = FAMILIES["mnist-mlp"].tasks.model_copy(update={"hidden": (1024,)})

    def estimate(name):
        spec = evaluation_spec("mnist-mlp", baselines=[name])
        changed = {"family": with_tasks(spec.family, tasks), "rule": RULE_SPECS["hyper"]()}
        return memory_estimate_bytes(spec.model_copy(update=changed))

    assert estimate("lbfgs") - estimate("sgd") > 22 * 4 * tasks.coordinates_per_task


def test_the_evaluation_that_follows_a_training_has_an_estimate_of_its_own():
    spec = training("", "quadratic").spec
    plan = spec.evaluation.model_copy(update={"test_tasks": 65_536, "horizon": 10_000})
    followed = spec.model_copy(update={"evaluate": True, "evaluation": plan})
    # nine curves of four bytes, and one in float64 while it is resampled
    following = followed.follow_up("")
    assert following is not None
    assert memory_estimate_bytes(following) > 9 * 4 * 65_536 * 10_001
    assert spec.follow_up("") is None
    assert memory_estimate_bytes(followed) == memory_estimate_bytes(spec)


def test_the_estimate_grows_with_what_a_job_holds():
    def estimate(family="quadratic", recipe=None, tasks=None, **resources):
        return memory_estimate_bytes(training("", family, recipe, tasks, **resources).spec)

    small = estimate()
    assert estimate(recipe={"tasks": 65_536}) > 2 * small
    assert estimate(recipe={"tasks": 100}, tasks={"dimension": 1000}) > 2 * small
    assert estimate(recipe={"unroll_steps": 100}) > small + 10**7
    many = {"tasks": 65_536}
    assert estimate(recipe=many) - estimate(recipe={"tasks": 32_768}) > 32_768 * 10 * 4 * 80  # the state of them all
    assert estimate(recipe=many, backend="torch") > 1.5 * small
    assert estimate(recipe=many, backend="reference") > 1.3 * estimate(recipe=many, backend="torch")
    wide = {"rule": {"hidden_size": 128, "layers": 4}, "unroll_steps": 100}
    assert estimate(recipe=wide, threads=8) > estimate(recipe=wide) + 7 * 33 * 2**20
    assert estimate("mnist-mlp", {"tasks": 65_536}) > 300 * GIB  # refused on any machine of today
    assert all(estimate(name) < GIB for name in FAMILIES)


def test_the_machine_is_a_container_where_it_is_one(tmp_path):
    assert usable_memory_bytes(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))
    (tmp_path / "memory.max").write_text(f"{300 * 2**20}\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert usable_memory_bytes(tmp_path) == 300 * 2**20
    assert usable_cpus(tmp_path) == 1
    for name in ("memory.max", "cpu.max"):
        (tmp_path / name).write_text("max\n" if name == "memory.max" else "max 100000\n")
    assert usable_memory_bytes(tmp_path) == usable_memory_bytes(tmp_path / "nowhere")
    assert usable_cpus(tmp_path) == usable_cpus(tmp_path / "nowhere")


@reads_the_peak
def test_the_peak_of_this_process_is_read(tmp_path):
    before = peak_memory_bytes()
    torch.ones(64 * 2**20, dtype=torch.uint8)
    assert before is not None
    assert peak_memory_bytes() >= before > 50 * 2**20
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    2048 kB\n")
    assert peak_memory_bytes(tmp_path / "status") == 2 * 2**20
    assert peak_memory_bytes(tmp_path / "nothing") is None
