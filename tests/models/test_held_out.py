"""Meta-training for losses on data that the inner steps do not see."""

from __future__ import annotations

import math

import pytest
import torch

from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models.backends import TorchBackend, backend_for
from models.baselines import TUNED, UNTUNED
from models.evaluation.by_validation import Made
from models.evaluation.evaluate import evaluate
from models.families.mlp import MLPSpec
from models.families.mlp.tasks import MLPFamily
from models.looks import looks
from models.memory import memory_estimate_bytes
from models.meta_loss import MetaLoss
from models.meta_train import TrainingResult, meta_train
from models.rollout import Learned, Sample, curves, run
from models.spec import Split, overridden
from models.tasks.catalogue import open_for_testing, open_for_training, open_for_tuning
from models.tasks.image_batch import OUTER_SHARE
from models.tuning import Tuned, tune
from models.unroll import begin, unroll_window

SMALL = MLPSpec(hidden=(4,), batch_size=12)


@pytest.fixture(scope="module")
def family():
    return MLPFamily(SMALL, {Split.TRAIN, Split.VALIDATION}, None)


def sampled(family, tasks=3):
    [batch] = family.sample(Split.TRAIN, seed=1, trajectory=0, tasks=tasks, dtype=torch.float64)
    return batch


def test_a_parted_task_sees_some_of_its_images_and_its_outer_loss_the_others(family):
    batch = sampled(family)
    inner = batch.parted()
    count = len(batch._training)
    for task in range(3):
        seen = [set(part._own_images[task].tolist()) for part in (inner, inner.outer)]
        assert not seen[0] & seen[1]
        assert seen[0] | seen[1] == set(range(count))
        assert len(seen[1]) == round(OUTER_SHARE * count)
        for part, own in zip((inner, inner.outer), seen, strict=True):
            for step in (0, 7, torch.tensor(40)):
                assert set(part._rows(step)[task].tolist()) <= own
    assert torch.equal(inner.initial(), batch.initial())
    shares = [set(inner._own_images[task].tolist()) for task in range(3)]
    assert shares[0] != shares[1]  # each task draws its own


def test_a_parted_task_is_the_same_alone(family):
    alone = family.sample(Split.TRAIN, seed=1, trajectory=0, tasks=1, first=2, dtype=torch.float64)[0].parted()
    together = sampled(family).parted()
    for one, three in ((alone, together), (alone.outer, together.outer)):
        losses, gradient = one.losses_and_gradient(one.initial(), 5)
        expected, whole = three.losses_and_gradient(three.initial(), 5)
        torch.testing.assert_close(losses, expected[2:])
        torch.testing.assert_close(gradient, whole.view(3, -1)[2])


@pytest.mark.parametrize("weighting", ["sum", "sqrt"])
@pytest.mark.parametrize("mode", ["detached", "exact"])
def test_the_meta_gradient_is_that_of_the_outer_losses(family, mode, weighting):
    """Central differences along a direction for the exact one; for the detached one, gradients as constants."""
    tasks = sampled(family, tasks=2).parted()
    rule = build({"kind": "mlp", "input": "raw", "hidden_size": 4}).double()  # holds nothing constant
    rule.initialise(torch.Generator().manual_seed(1))
    start = torch.nn.utils.parameters_to_vector(rule.parameters()).detach()
    backend = TorchBackend(rule, torch.float64, torch.device("cpu"), fused=False)
    steps = 4
    window, _ = unroll_window(tasks, begin(tasks, backend), steps, backend, MetaLoss.of(mode, weighting, "held_out"))
    torch.nn.utils.vector_to_parameters(start, rule.parameters())
    fixed = _gradients(tasks, backend, steps) if mode == "detached" else None
    direction = torch.randn(len(start), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ahead, behind = (
        _outer_loss(tasks, rule, backend, start + sign * 1e-6 * direction, steps, weighting, fixed) for sign in (1, -1)
    )
    slope = (ahead - behind) / 2e-6
    assert float(window.gradient @ direction) == pytest.approx(slope, rel=2e-5)


def _gradients(tasks, backend, steps):
    found, position = [], begin(tasks, backend)
    theta, memory, gradient = position.theta.clone(), position.memory, position.gradient
    for step in range(1, steps + 1):
        found.append(gradient)
        memory = backend.step(theta, gradient, memory)
        _, gradient = tasks.losses_and_gradient(theta, step)
    return found


def _outer_loss(tasks, rule, backend, weights, steps, weighting, fixed):
    """The meta-loss as it is defined; detached, with the gradients that the unchanged rule met, and to first order."""
    torch.nn.utils.vector_to_parameters(weights, rule.parameters())
    position = begin(tasks, backend)
    theta, memory, gradient = position.theta.clone(), position.memory, position.gradient
    total = 0.0
    for step in range(1, steps + 1):
        entered = gradient if fixed is None else fixed[step - 1]
        memory = backend.step(theta, entered, memory)
        _, gradient = tasks.losses_and_gradient(theta, step)
        losses, _ = tasks.outer.losses_and_gradient(theta, step)
        total += float((losses if weighting == "sum" else 2 * losses.sqrt()).mean())
    return total


def test_a_run_on_held_out_data_scores_the_loss_on_validation_images(training_spec):
    spec = training_spec(
        "digits-mlp", meta_steps=4, validation_interval=4, tasks=1, validation_tasks=3, on="held_out", objective="both"
    )
    *_, result = meta_train(spec)
    assert isinstance(result, TrainingResult)
    learned = Learned(backend_for(rule_weights.loads(result.weights), torch.float32, torch.device("cpu")))
    family = open_for_training(spec.family.tasks)
    [tasks] = family.sample(Split.VALIDATION, seed=0, trajectory=0, tasks=3)
    theta = tasks.initial()
    stepper = learned.start(tasks)
    curve = [float(tasks.held_out(theta).losses.mean())]
    for step in range(20):
        stepper.step(theta, tasks.losses_and_gradient(theta, step)[1])
        curve.append(float(tasks.held_out(theta).losses.mean()))
    area = sum(curve[step] for step in range(2, 21, 2)) / 10
    assert result.validation_score == pytest.approx(math.sqrt(area * curve[-1]), rel=1e-5)
    assert result.standing_still == pytest.approx(curve[0], rel=1e-5)
    assert result.summary["cost"]["training"]["gradient_evaluations"] == 1 + 4 * 2 * 5
    plain = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"on": "training"})})
    assert memory_estimate_bytes(spec) > memory_estimate_bytes(plain)


def test_looks_are_spread_over_the_curve_and_the_last_is_its_end():
    assert looks(100) == tuple(range(0, 101, 10))
    assert looks(4) == (0, 1, 2, 3, 4)
    assert looks(1) == (0, 1)


def test_tasks_without_data_are_refused_in_words(training_spec):
    with pytest.raises(ValueError, match=r"recipe\.on held_out needs tasks with data.*quadratic has none"):
        training_spec(on="held_out")


def by_torch(family, split, rate, steps, trajectory):
    """The held-out losses (steps + 1,) of torch's Adam: the network written anew, one task at a time."""
    rows = []
    for first in range(2):
        [tasks] = family.sample(split, seed=0, trajectory=trajectory, tasks=1, first=first)
        images, theta = tasks._held_out, torch.nn.Parameter(tasks.initial())
        pixels, optimizer = images.pixels.float() * images.scale, torch.optim.Adam([theta], lr=rate)

        def loss(theta=theta.detach(), pixels=pixels, images=images):
            hidden = torch.sigmoid(pixels @ theta[: 64 * 20].view(64, 20) + theta[64 * 20 : 65 * 20])
            logits = hidden @ theta[65 * 20 : 65 * 20 + 200].view(20, 10) + theta[-10:]
            return float(torch.nn.functional.cross_entropy(logits, images.labels))

        seen = [loss()]
        for step in range(steps):
            _, theta.grad = tasks.losses_and_gradient(theta.detach(), step)
            optimizer.step()
            seen.append(loss())
        rows.append(seen)
    return torch.tensor(rows).mean(dim=0)


def test_a_baseline_is_tuned_for_the_loss_on_validation_images(training_spec):
    tasks = training_spec("digits-mlp").family.tasks
    family, sample = open_for_tuning(tasks), Sample(Split.VALIDATION, 0, 1, 2)
    sweep = tune(TUNED["adam"], family, sample, 20, ["constant"], on="held_out")
    try:
        while True:
            next(sweep)
    except StopIteration as end:
        tuning = end.value
    for point in (tuning.best_final, tuning.best_area):
        expected = by_torch(family, Split.VALIDATION, point.learning_rate, 20, trajectory=1)
        assert point.final == pytest.approx(float(expected[-1]), rel=1e-4)
        assert point.area == pytest.approx(float(expected[2::2].mean()), rel=1e-4)
    assert tuning.best_final.final == min(point.final for point in tuning.points)


def test_an_evaluation_on_held_out_data_judges_by_test_images(evaluation_spec):
    rule = build({"kind": "mlp"})
    rule.initialise(torch.Generator().manual_seed(1))
    few = {"horizon": 20, "test_tasks": 2, "tuning_tasks": 2, "baselines": ["adam"], "schedules": ["constant"]}
    spec = evaluation_spec("digits-mlp", **few, untuned=["dog"], on="held_out")
    recipe = overridden(spec.family.recipe, {"validation_tasks": 2, "validation_horizons": [], "on": "held_out"})
    made = {on: Made(None, recipe.model_copy(update={"on": on}), score=1.0) for on in ("held_out", "training")}
    *_, last = evaluate(rule_weights.dumps(rule), spec, made=made["held_out"])
    result = last.result
    assert result["on"] == "held_out"
    assert result["criteria"]["final"] == "held-out loss after the last step"
    family, rates = open_for_testing(spec.family.tasks), result["tuning"]["adam"]["learning_rate"]
    expected = by_torch(family, Split.TEST, rates["final"], 20, trajectory=0)
    adam = result["optimizers"]["adam"]
    assert adam["curve"]["step"] == list(range(0, 21, 2))
    assert adam["curve"]["mean"] == pytest.approx(expected[::2].tolist(), rel=1e-4)
    assert adam["final"]["mean"] == pytest.approx(float(expected[-1]), rel=1e-4)
    assert result["held_out"]["adam"]["loss"] == pytest.approx(float(expected[-1]), rel=1e-4)
    compared, learned = result["comparisons"]["adam"], result["held_out"]["learned"]["loss"]
    assert compared["final"]["ratio_of_means"] == pytest.approx(learned / float(expected[-1]), rel=1e-4)
    assert {target["step"] for target in result["time_to_target"]["targets"]} == {4, 10, 14, 20}
    # the best of the tier stands against the rule by the very criterion that selected it
    validated, areas = result["validation"], result["tuning"]["adam"]["learning_rate"]["area"]
    assert validated["criterion"] == recipe.criterion
    assert validated["learning_rate"] in (rates["final"], areas)
    other = evaluation_spec("digits-mlp", **few | {"horizon": 4}, untuned=[], on="held_out")
    *_, last = evaluate(rule_weights.dumps(rule), other, made=made["training"])
    assert last.result["validation"] is None, "its score is of training losses"


def test_what_is_judged_at_its_average_is_judged_there_on_held_out_data_too():
    family = open_for_tuning(MLPSpec())
    sample, dog = Sample(Split.VALIDATION, 0, 1, 2), UNTUNED["dog"]
    found = curves(run(dog, family, sample, 6, looks=(0, 6), held_out=True))
    assert torch.equal(found.losses[-1], found.held_out.losses)


def test_a_run_whose_training_loss_is_not_finite_is_infinite_on_held_out_data():
    family = open_for_tuning(MLPSpec())
    rate = Tuned(TUNED["sgd"], 1e38, "constant", 10)
    found = curves(run(rate, family, Sample(Split.VALIDATION, 0, 1, 2), 10, looks=looks(10)))
    assert found.final.isinf().all()
    assert found.losses[0].isfinite().all()


def test_an_evaluation_of_tasks_without_data_is_refused_in_words(evaluation_spec):
    with pytest.raises(ValueError, match=r"evaluation\.on held_out needs tasks with data.*quadratic has none"):
        evaluation_spec(on="held_out")
