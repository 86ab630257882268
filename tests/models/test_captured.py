"""Windows replayed on buffers that stay. Without a GPU torch.fx records: like a CUDA graph, it replays the very
operations with the very numbers and tensors that they had when they were recorded, and knows no Python."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from gradsmith.rules import Rule, build
from models.backends import TorchBackend, backend_for
from models.captured import CapturedWindows, Outcome, Recorder, windows
from models.families.mlp import MLPSpec
from models.families.mlp.tasks import MLPFamily
from models.families.quadratic import QuadraticSpec
from models.families.quadratic.tasks import QuadraticBatch, QuadraticFamily
from models.spec import Split
from models.tasks.base import Family
from models.unroll import Position, Window, begin, unroll_window

torch.set_num_threads(1)

STEPS = 3


def record_by_fx(work: Callable[[], Outcome]) -> tuple[Outcome, Callable[[], None]]:
    """As `record_on_cuda`: an outcome in buffers that stay, and what fills them again."""
    kept: list[Tensor] = []

    def flat() -> list[Tensor]:
        window, after = work()
        return [window.losses, window.gradient, after.theta, after.gradient, after.losses, *after.memory]

    traced = make_fx(flat)()
    asked = [node for node in traced.graph.nodes if "_local_scalar_dense" in str(node.target)]
    assert not asked, "a graph cannot tell Python a number that is on the device"

    def replay() -> None:
        with torch.no_grad():  # the modes of Python are not part of a trace
            for mine, computed in zip(kept, traced(), strict=True):
                mine.copy_(computed)

    kept += [torch.zeros_like(tensor) for tensor in flat()]
    replay()

    losses, gradient, theta, last, at_theta, *memory = kept
    return (Window(losses, gradient), Position(0, theta, tuple(memory), last, at_theta)), replay


def make_rule(seed: int) -> Rule:
    rule = build({"kind": "lstm", "hidden_size": 5, "layers": 1})
    rule.initialise(torch.Generator().manual_seed(seed))
    return rule


@pytest.fixture(scope="module")
def quadratics() -> Family:
    return QuadraticFamily(QuadraticSpec(kind="quadratic", dimension=4), [Split.TRAIN])


@pytest.fixture(scope="module", params=["mlp", "quadratic"])
def family(request: pytest.FixtureRequest, quadratics: Family) -> Family:
    if request.param == "quadratic":
        return quadratics
    spec = MLPSpec(kind="mlp", dataset="digits", hidden=(3,), batch_size=8)
    return MLPFamily(spec, [Split.TRAIN], Path("unused"))


def assert_same(found: Outcome, truth: Outcome) -> None:
    for ours, theirs in zip(found, truth, strict=True):
        for name, value in vars(theirs).items():
            torch.testing.assert_close(getattr(ours, name), value, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_replays_follow_step_weights_and_tasks(
    family: Family, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSMITH_NATIVE", "off")  # torch's calls can be recorded here, those of a compiled kernel not
    rule = make_rule(0)
    backend = TorchBackend(rule)
    recorded: list[int] = []

    def record(work: Callable[[], Outcome]) -> Any:
        recorded.append(1)
        return record_by_fx(work)

    captured = CapturedWindows(backend, record)
    for trajectory in range(2):
        [tasks] = family.sample(Split.TRAIN, seed=1, trajectory=trajectory, tasks=2)
        position = begin(tasks, backend)
        for window in range(3):
            truth = unroll_window(tasks, position, STEPS, backend)
            found = captured(tasks, position, STEPS)
            assert_same(found, truth)
            with torch.no_grad():  # a meta-step, in place
                for parameter in rule.parameters():
                    parameter.mul_(1.1 + 0.1 * window)
            position = found[1]
    assert len(recorded) == 1
    assert "CUDA graph" not in caplog.text  # nothing ran plainly


def test_what_is_returned_is_the_callers_own(quadratics: Family) -> None:
    rule = make_rule(0)
    backend = TorchBackend(rule)
    captured = CapturedWindows(backend, record_by_fx)
    [tasks] = quadratics.sample(Split.TRAIN, seed=1, trajectory=0, tasks=2)
    first = captured(tasks, begin(tasks, backend), 1)
    kept = [tensor.clone() for tensor in (first[0].gradient, first[1].theta, *first[1].memory)]
    second = captured(tasks, first[1], 1)
    assert not torch.equal(first[1].theta, second[1].theta)
    assert all(map(torch.equal, kept, (first[0].gradient, first[1].theta, *first[1].memory)))


def test_another_length_or_number_of_tasks_is_recorded_anew(
    quadratics: Family, caplog: pytest.LogCaptureFixture
) -> None:
    backend = TorchBackend(make_rule(0))
    captured = CapturedWindows(backend, record_by_fx)
    for number, steps in ((2, 1), (2, 2), (3, 2)):
        [tasks] = quadratics.sample(Split.TRAIN, seed=1, trajectory=0, tasks=number)
        position = begin(tasks, backend)
        assert_same(captured(tasks, position, steps), unroll_window(tasks, position, steps, backend))
    assert "CUDA graph" not in caplog.text


def test_what_a_recorder_refuses_runs_plainly_after_one_line(
    quadratics: Family, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(work: Callable[[], Outcome]) -> Any:
        work()
        raise RuntimeError("operation not permitted when stream is capturing")

    runs_plainly(refuse, quadratics, caplog, "RuntimeError: operation not permitted")


def test_a_replay_that_does_nothing_is_found_out(quadratics: Family, caplog: pytest.LogCaptureFixture) -> None:
    """As one would that had kept the step or the weights of the window that was recorded."""
    runs_plainly(
        lambda work: (work(), lambda: None),
        quadratics,
        caplog,
        "a replay was off by",
    )


def test_tasks_that_do_not_name_a_buffer_are_found_out_with_the_second_batch(
    quadratics: Family, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuadraticBatch, "buffers", lambda self: {"W": self.W})
    runs_plainly(record_by_fx, quadratics, caplog, "a replay was off by")


def runs_plainly(record: Recorder, family: Family, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    caplog.set_level(logging.WARNING)
    rule = make_rule(0)
    backend = TorchBackend(rule)
    captured = CapturedWindows(backend, record)
    for trajectory in range(2):
        [tasks] = family.sample(Split.TRAIN, seed=1, trajectory=trajectory, tasks=2)
        position = begin(tasks, backend)
        for _ in range(3):
            truth = unroll_window(tasks, position, STEPS, backend)
            found = captured(tasks, position, STEPS)
            assert_same(found, truth)
            position = found[1]
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert "small tasks train more slowly" in caplog.text


def test_on_a_cpu_windows_run_plainly(quadratics: Family) -> None:
    [tasks] = quadratics.sample(Split.TRAIN, seed=1, trajectory=0, tasks=2)
    rule = make_rule(0)
    backend = TorchBackend(rule)
    position = begin(tasks, backend)
    run = windows(backend, torch.device("cpu"))
    assert not isinstance(run, CapturedWindows)
    assert_same(run(tasks, position, STEPS), unroll_window(tasks, position, STEPS, backend))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_a_gpu_a_graph_gives_what_the_plain_window_gives(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    device = torch.device("cuda", 0)
    rule = make_rule(0).to(device)
    backend = backend_for(rule, torch.float32, device)
    run = windows(backend, device)
    assert isinstance(run, CapturedWindows)
    for trajectory in range(2):
        [tasks] = family.sample(Split.TRAIN, seed=1, trajectory=trajectory, tasks=2, device=device)
        position = begin(tasks, backend)
        for _ in range(4):
            truth = unroll_window(tasks, position, STEPS, backend)
            window, after = run(tasks, position, STEPS)
            torch.testing.assert_close(window.gradient, truth[0].gradient, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(window.losses, truth[0].losses, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(after.theta, truth[1].theta, rtol=1e-5, atol=1e-6)
            with torch.no_grad():
                for parameter in rule.parameters():
                    parameter.mul_(1.1)
            position = after
    assert "CUDA graph" not in caplog.text
