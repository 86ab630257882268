"""Meta-training as its users see it: events, determinism, resuming, what goes wrong."""

from __future__ import annotations

import math

import pytest
import torch

from gradsmith.rules import weights as rule_weights
from models import captured, meta_train
from models.backends import backend_for
from models.errors import CheckpointMismatch, DeviceUnavailable, TrainingDiverged
from models.meta_optimizer import AdamState, clipped, cosine
from models.meta_train import MetaStep, Restarted, TrainingResult, TrajectoryEnd, Validated, Working
from models.rollout import Learned, Sample, curves, run
from models.seal import seal
from models.spec import Recipe, Resources, Split
from models.tasks import randomness
from models.tasks.base import Family
from models.tasks.catalogue import open_for_training, open_for_tuning
from models.training import checkpoint, trainer, validation
from models.training.selection import shortfall
from models.training.validation import VALIDATION_SEED


def events_of(spec, **options):
    return list(meta_train.meta_train(spec, **options))


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("family", ["quadratic", "digits-mlp"])
def test_the_events_tell_the_whole_run(training_spec, family):
    spec = training_spec(family, meta_steps=14, tasks=3)
    events = events_of(spec)
    steps = of_kind(events, MetaStep)
    assert [step.step for step in steps] == list(range(1, 15))
    assert all(math.isfinite(step.loss) and math.isfinite(step.gradient_norm) for step in steps)
    assert not any(step.skipped for step in steps)
    assert steps[0].learning_rate == spec.recipe.meta_learning_rate
    assert [validated.step for validated in of_kind(events, Validated)] == [8, 14]
    assert [end.step for end in of_kind(events, TrajectoryEnd)] == [4, 8, 12]
    (result,) = of_kind(events, TrainingResult)
    assert events[-1] is result
    assert result.validation_score == min(validated.score for validated in of_kind(events, Validated))
    # Four windows of five steps and the gradient at theta_0, for each of three whole trajectories and half of one.
    assert result.summary["cost"]["training"]["gradient_evaluations"] == 3 * (3 * 21 + 11)
    assert result.summary["cost"]["selection"]["gradient_evaluations"] == 2 * 8 * 21
    assert rule_weights.metadata(result.weights)["extra"]["family"] == family


def test_the_result_says_what_standing_still_scores(training_spec):
    """A hand's own answer: the validation tasks' mean loss at theta_0."""
    spec = training_spec(meta_steps=8)
    (result,) = of_kind(events_of(spec), TrainingResult)
    sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, spec.recipe.validation_tasks)
    family = open_for_tuning(spec.family.tasks, None)
    [tasks] = family.sample(sample.split, seed=sample.seed, trajectory=0, tasks=sample.tasks)
    expected = float(tasks.losses(tasks.initial(), 0).mean())
    assert result.standing_still == result.summary["standing_still"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("score", "standing_still", "named"),
    [(0.99, 1.0, True), (1.0, 1.0, False), (1e9, 1.0, False), (5.0, math.inf, True)],
)
def test_who_may_be_named_beats_standing_still(score, standing_still, named):
    found = shortfall(score, standing_still, Recipe(meta_learning_rate=0.5))
    assert (found is None) is named
    assert named or "lower recipe.meta_learning_rate (now 0.5)" in found


def test_it_learns(training_spec):
    spec = training_spec(meta_steps=40, meta_learning_rate=0.05, validation_interval=10)
    events = events_of(spec)
    scores = [validated.score for validated in of_kind(events, Validated)]
    assert scores[-1] < 0.7 * scores[0]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(training_spec):
    first, second, other = (events_of(training_spec(seed=seed)) for seed in (5, 5, 6))
    assert of_kind(first, MetaStep) == of_kind(second, MetaStep)
    assert first[-1].weights == second[-1].weights
    assert first[-1].weights != other[-1].weights


@pytest.mark.parametrize("family", ["quadratic", "digits-mlp"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(training_spec, family):
    spec = training_spec(family, tasks=2, validation_tasks=4)
    whole = events_of(spec)
    end = of_kind(whole, TrajectoryEnd)[2]
    resumed = events_of(spec, resume=end.checkpoint())  # taken after the run went on: the checkpoint does not move
    later = [event for event in whole if isinstance(event, MetaStep | Validated) and event.step > end.step]
    assert [event for event in resumed if isinstance(event, MetaStep | Validated)] == later
    assert resumed[-1].weights == whole[-1].weights
    assert resumed[-1].validation_score == whole[-1].validation_score
    costs = [events[-1].summary["cost"]["training"]["gradient_evaluations"] for events in (whole, resumed)]
    assert costs[0] == costs[1]


def test_the_best_rule_is_what_the_result_holds(training_spec, monkeypatch):
    # From step 17 on, a learning rate that ruins whatever was learned.
    monkeypatch.setattr(trainer, "cosine", lambda _base, _ratio, step, _total: 0.05 if step < 17 else 10.0)
    spec = training_spec(meta_steps=32)
    events = events_of(spec)
    best = min(of_kind(events, Validated), key=lambda validated: validated.score)
    assert events[-1].summary["best_step"] == best.step < 32
    assert [validated.best for validated in of_kind(events, Validated)][-1] is False
    rule = rule_weights.loads(events[-1].weights)
    sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, spec.recipe.validation_tasks)
    found = curves(
        run(
            Learned(backend_for(rule, torch.float32, torch.device("cpu"))),
            open_for_training(spec.family.tasks),
            sample,
            20,
        )
    )
    assert float(found.area.mean()) == best.score  # the same bits after saving and loading


def test_training_and_selection_never_draw_a_test_task(training_spec, monkeypatch):
    drawn = []
    original = randomness.task_seeds

    def recorded(split, *rest):
        drawn.append(split)
        return original(split, *rest)

    monkeypatch.setattr("models.tasks.base.task_seeds", recorded)
    events_of(training_spec())
    assert set(drawn) == {Split.TRAIN, Split.VALIDATION}


def test_all_seeds_of_a_family_are_selected_on_the_same_tasks(training_spec, monkeypatch):
    drawn = {}
    original = Family.sample

    def recorded(self, split, **where):
        if split is Split.VALIDATION:
            drawn.setdefault(where["seed"], []).append((where["trajectory"], where["tasks"]))
        return original(self, split, **where)

    monkeypatch.setattr(Family, "sample", recorded)
    for seed in (0, 1):
        events_of(training_spec(seed=seed, meta_steps=8))
    assert list(drawn) == [VALIDATION_SEED]
    assert len(set(drawn[VALIDATION_SEED])) == 1


def test_a_diverging_window_is_skipped_counted_and_left_behind(training_spec, monkeypatch):
    original = captured.unroll_window
    calls = []

    def poisoned(*arguments):
        window, position = original(*arguments)
        calls.append(position.step)
        if len(calls) == 2:
            window.losses[-1, 0] = torch.inf
        if len(calls) == 7:
            window.gradient[3] = torch.nan
        return window, position

    monkeypatch.setattr(captured, "unroll_window", poisoned)
    events = events_of(training_spec())
    steps = of_kind(events, MetaStep)
    assert [step.step for step in steps if step.skipped] == [2, 7]
    assert calls[:3] == [5, 10, 5]  # the poisoned trajectory ended at its second window, a new one began
    summary = events[-1].summary
    assert (summary["skipped_steps"], summary["diverged_windows"]) == (2, 1)
    assert len(steps) == 24


@pytest.fixture
def every_meta_gradient_is_nan(monkeypatch):
    original = captured.unroll_window

    def poisoned(*arguments):
        window, position = original(*arguments)
        window.gradient.fill_(torch.nan)
        return window, position

    monkeypatch.setattr(captured, "unroll_window", poisoned)


@pytest.mark.usefixtures("every_meta_gradient_is_nan")
def test_too_many_bad_steps_in_a_row_end_the_run_with_advice(training_spec):
    with pytest.raises(TrainingDiverged, match=r"25 meta-steps.*Lower meta_learning_rate \(now 0\.01\)"):
        events_of(training_spec(meta_steps=60))


@pytest.mark.usefixtures("every_meta_gradient_is_nan")
def test_a_run_that_skipped_all_its_steps_is_no_success(training_spec):
    with pytest.raises(TrainingDiverged, match=r"learned nothing: all 6 meta-steps.*rule\.output_scale \(now 0\.1\)"):
        events_of(training_spec(meta_steps=6))


def test_a_run_without_one_finite_validation_is_no_success(training_spec, monkeypatch):
    original = validation.run

    def diverging(*arguments, **options):
        found = yield from original(*arguments, **options)
        found.losses[-1, 3] = torch.inf
        return found

    monkeypatch.setattr(validation, "run", diverging)
    stream = meta_train.meta_train(training_spec(meta_steps=2))
    step, *_, validated = (next(stream) for _ in range(3))
    assert isinstance(step, MetaStep)
    assert not step.skipped
    assert validated == Validated(2, math.inf, best=False)
    with pytest.raises(TrainingDiverged, match=r"learned nothing: every validation.*meta_learning_rate \(now 0\.01\)"):
        next(stream)


def test_a_plateau_is_left_for_a_new_initialisation(training_spec):
    # A rule whose output is scaled to nothing cannot move: validation stands still at the starting loss.
    rule = {"output_scale": 1e-9}
    spec = training_spec(meta_steps=40, validation_interval=4, plateau_patience=3, rule=rule)
    events = events_of(spec)
    restarts = of_kind(events, Restarted)
    assert [restart.step for restart in restarts] == [12]  # and none in the second half: 24 is too late
    assert "new initialisation" in restarts[0].reason
    assert events[-1].summary["restarts"] == [12]
    rates = [step.learning_rate for step in of_kind(events, MetaStep)]
    assert rates[12] == spec.recipe.meta_learning_rate  # the schedule begins anew as well
    end = next(end for end in of_kind(events, TrajectoryEnd) if end.step >= 12)
    assert events_of(spec, resume=end.checkpoint())[-1].weights == events[-1].weights


def test_a_checkpoint_of_another_job_or_of_nothing_is_refused(training_spec):
    end = next(event for event in meta_train.meta_train(training_spec()) if isinstance(event, TrajectoryEnd))
    with pytest.raises(CheckpointMismatch, match="another spec"):
        events_of(training_spec(seed=1), resume=end.checkpoint())
    for broken in (b"", b"nonsense of no meaning", end.checkpoint()[:200], end.checkpoint()[:-7]):
        with pytest.raises(CheckpointMismatch):
            events_of(training_spec(), resume=broken)


def test_one_flipped_bit_anywhere_in_a_checkpoint_is_noticed(training_spec):
    """In its mark, its checksum, the length and text of its header, its progress record and each of its tensors."""
    spec = training_spec()
    whole = next(event for event in meta_train.meta_train(spec) if isinstance(event, TrajectoryEnd)).checkpoint()
    first_kilobyte, last = list(range(1024)), len(whole) - 1
    for position in [*first_kilobyte, *range(1024, last, max(1, last // 2000)), last]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(CheckpointMismatch):
            checkpoint.loads(bytes(damaged), spec, torch.device("cpu"))
    assert checkpoint.loads(whole, spec, torch.device("cpu")).step > 0


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_checkpoint_of_an_older_format_still_resumes_bit_for_bit(training_spec, version):
    """It is what is sealed today, with its own number and its own name of the job; the first had no seal."""
    spec = training_spec()
    whole = events_of(spec)
    end = of_kind(whole, TrajectoryEnd)[1]
    content = end.checkpoint()[len(b"gradsmith-sealed-1\n") + 32 :]
    older = content.replace(rb"\"format_version\":4", rb"\"format_version\":%d" % version)
    older = older.replace(checkpoint.fingerprint(spec).encode(), checkpoint.fingerprint(spec, version).encode())
    assert older != content
    older = seal(older) if version > 1 else older
    assert events_of(spec, resume=older)[-1].weights == whole[-1].weights
    with pytest.raises(CheckpointMismatch, match="another spec"):
        events_of(training_spec(rule={"forget_bias": 0.5}), resume=older)
    with pytest.raises(CheckpointMismatch, match="format version 4"):
        events_of(spec, resume=content)  # a new one that lost its seal


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named(training_spec):
    spec = training_spec().model_copy(update={"resources": Resources(device="gpu")})
    with pytest.raises(DeviceUnavailable, match=r"resources\.device = cpu"):
        events_of(spec)


def test_the_meta_optimizer_is_torchs_adam():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(50, generator=generator, dtype=torch.float64)
    theirs = weights.clone().requires_grad_()
    oracle = torch.optim.Adam([theirs], lr=0.02)
    ours = AdamState.zero(weights)
    for _ in range(40):
        gradient = torch.randn(50, generator=generator, dtype=torch.float64)
        weights, ours = ours.updated(weights, gradient, 0.02)
        theirs.grad = gradient
        oracle.step()
        torch.testing.assert_close(weights, theirs.detach(), rtol=1e-12, atol=1e-13)


def test_the_learning_rate_falls_along_a_cosine():
    rates = [cosine(0.1, 0.03, step, 101) for step in range(1, 102)]
    assert rates[0] == 0.1
    assert rates[-1] == pytest.approx(0.003)
    assert rates[50] == pytest.approx((0.1 + 0.003) / 2)
    assert rates == sorted(rates, reverse=True)
    assert cosine(0.1, 0.03, 1, 1) == 0.1


def test_clipping_keeps_the_direction_and_reports_the_norm_before():
    gradient, norm = clipped(torch.tensor([3.0, 4.0]), 1.0)
    assert norm == 5.0
    torch.testing.assert_close(gradient, torch.tensor([0.6, 0.8]))
    short = torch.tensor([0.3, 0.4])
    assert clipped(short, 1.0)[0] is short


def test_a_validation_says_between_inner_steps_that_it_works(training_spec, monkeypatch):
    spec = training_spec(meta_steps=8)
    quiet = events_of(spec)
    monkeypatch.setattr(validation, "WORKING_INTERVAL_SECONDS", 0.0)
    events = events_of(spec)
    assert of_kind(events, Working) == [Working(8)] * 20  # one after each inner step of the only validation
    assert isinstance(events[-2], Validated)
    assert of_kind(events, MetaStep) == of_kind(quiet, MetaStep)
    assert events[-1].weights == quiet[-1].weights
