"""`recipe.products`: what may ask for bfloat16, what runs it, and that a training with it learns and resumes."""

from __future__ import annotations

import re

import pytest
import torch
from pydantic import ValidationError

from gradsmith.rules import RuleSet, build
from gradsmith.rules import weights as rule_weights
from gradsmith.rules.kernels.native.targets import AVX512_BF16, targets_here
from models.backends import EMULATES, CompositeBackend, NativeBackend, backend_for
from models.errors import BackendUnavailable
from models.meta_train import TrainingResult, TrajectoryEnd, meta_train
from models.rollout import Learned, Sample, curves, run
from models.spec import MetaTrainSpec, Split
from models.task_spec import Part
from models.tasks.catalogue import open_for_training
from models.threads import calibrated
from models.training.validation import VALIDATION_SEED
from tests.compiler import compiled

CPU = torch.device("cpu")
RULE = {"kind": "lstm", "hidden_size": 7, "layers": 2}  # whose kernels other tests compile, too
EMULATED = targets_here(bfloat16=True)[0] != AVX512_BF16


def resources(spec: MetaTrainSpec, **asked: object) -> MetaTrainSpec:
    return MetaTrainSpec.model_validate(spec.model_dump() | {"resources": asked})


def result(events):
    [found] = [event for event in events if isinstance(event, TrainingResult)]
    return found


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"rule": {"kind": "hyper"}}, "this is hyper, 2 x 24, once per tensor. Leave products out"),
        ({"rule": {"kind": "lstm", "head": "tanh"}}, "this is lstm, 2 x 20, log_sign input, tanh head. Leave"),
        ({"rule": {"kind": "lstm", "hidden_size": 129}}, "at most 4 layers of 128 units; this is lstm, 2 x 129"),
        ({"rules": {"*": {"kind": "lstm"}, "theta": {"kind": "mlp"}}}, "this is mlp, 2 x 24"),
        ({"rule": {"kind": "lstm"}, "meta_gradient": "exact"}, "meta_gradient is exact; leave products out, or send"),
        ({"products": "float16"}, "Input should be 'float32' or 'bfloat16'"),
    ],
)
def test_what_cannot_have_such_products_is_refused_in_words(training_spec, recipe, said):
    with pytest.raises(ValidationError, match=re.escape(said)):
        training_spec(**({"products": "bfloat16"} | recipe))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"backend": "torch"}, "this asks for backend torch; leave products out, or send device cpu and backend auto"),
        ({"backend": "reference"}, "this asks for backend reference"),
        ({"device": "gpu"}, "by the native kernel on the CPU alone, and this asks for device gpu"),
    ],
)
def test_other_backends_have_no_such_products(training_spec, asked, said):
    spec = training_spec(products="bfloat16")
    assert resources(spec, backend="native").recipe.products == "bfloat16"
    assert resources(training_spec(), **asked).recipe.products == "float32"
    with pytest.raises(ValidationError, match=re.escape(said)):
        resources(spec, **asked)


def test_a_worker_without_the_kernel_says_so(monkeypatch):
    monkeypatch.setenv("GRADSMITH_NATIVE", "off")
    with pytest.raises(BackendUnavailable, match=re.escape("(GRADSMITH_NATIVE=off). Send recipe.products float32")):
        backend_for(build(RULE), torch.float32, CPU, products="bfloat16")
    monkeypatch.delenv("GRADSMITH_NATIVE")
    with pytest.raises(BackendUnavailable, match="it runs rules of kind lstm alone"):
        backend_for(build({"kind": "hyper"}), torch.float32, CPU, products="bfloat16")


@compiled
def test_a_backend_says_whether_it_emulates():
    rule = build(RULE)
    backend = backend_for(rule, torch.float32, CPU, products="bfloat16")
    assert isinstance(backend, NativeBackend)
    assert backend.kernel.bfloat16
    assert backend.name.endswith(EMULATES) == EMULATED
    usual = backend_for(rule, torch.float32, CPU)
    assert isinstance(usual, NativeBackend)
    assert not usual.kernel.bfloat16
    assert EMULATES not in usual.name
    parts = [Part(name="a", shape=(3,), role="vector"), Part(name="b", shape=(5,), role="vector")]
    several = backend_for(RuleSet({"a": build(RULE), "*": build(RULE)}), torch.float32, CPU, parts=parts,
                          products="bfloat16")  # fmt: skip
    assert isinstance(several, CompositeBackend)
    assert several.name == backend.name
    asked = {"coordinates": 64, "most": 2, "seconds": 0.01}
    try:
        assert calibrated(rule, torch.float32, CPU, **asked, products="bfloat16") in (1, 2)
    finally:
        torch.set_num_threads(1)


@compiled
def test_a_training_with_such_products_learns_as_in_float32_and_resumes_bit_for_bit(training_spec):
    """Within a percent, where both score less than half of standing still. Scores are those of the rule in float32, as
    its users run it."""
    recipe = {"rule": RULE, "meta_steps": 60, "validation_interval": 20, "tasks": 16, "validation_tasks": 32}
    usual = result(meta_train(training_spec(**recipe)))
    spec = training_spec(**recipe, products="bfloat16")
    events = list(meta_train(spec))
    found = result(events)
    assert found.weights != usual.weights
    assert found.validation_score == pytest.approx(usual.validation_score, rel=0.01)
    assert found.validation_score < 0.5 * found.standing_still
    assert (EMULATES in found.summary["runtime"]["backend"]) == EMULATED
    learned = Learned(backend_for(rule_weights.loads(found.weights), torch.float32, CPU))
    sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, 32)
    scored = curves(run(learned, open_for_training(spec.family.tasks), sample, 20))
    assert float(scored.area.mean()) == found.validation_score
    [checkpoint] = [event.checkpoint() for event in events if isinstance(event, TrajectoryEnd) and event.step == 32]
    assert result(meta_train(spec, resume=checkpoint)).weights == found.weights
