"""The Triton programs of rules that look at tensors against torch's step: in the interpreter everywhere, and on a GPU.

The interpreter takes up to 50 ms for a program, so problems are small.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from gradsmith import LearnedOptimizer
from gradsmith.axes.triton import TritonAxis
from gradsmith.rules import build
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.triton import triton_tensor_kernel
from gradsmith.rules.kernels.triton.tensors import Moving, Places, aligned
from tests.sdk import triton_tensor_trials as trials
from tests.sdk.triton_here import Interpreted, needs_triton, on_gpu

MLP = {"kind": "mlp"}
RULES: dict[str, dict[str, Any]] = {
    "2 x 24": {},
    "3 x 33, knows its steps": {"layers": 3, "hidden_size": 33, "clock": "time+fraction"},
    "1 x 5": {"layers": 1, "hidden_size": 5, "output_scale": 1.0},
    "mlp, 2 x 24": MLP,
    "mlp, 1 x 5, knows its steps": {**MLP, "layers": 1, "hidden_size": 5, "input": "tensor_scale+fraction"},
}
BOTH = pytest.mark.parametrize("config", [{}, MLP], ids=["hyper", "mlp"])
SCALAR_EMPTY_LONG_SHORT = (1, 0, 150, 33)  # in blocks of 128
ERROR = 2e-5
"""Error of torch in float32 over a tensor's largest value. Its 1 - b^t is off by 6e-6 in the first step, ours not."""


def gradients(steps: int, coordinates: int) -> torch.Tensor:
    return torch.randn(steps, coordinates, generator=torch.Generator().manual_seed(1))


def require_equal(found: dict[str, list[list[Any]]]) -> None:
    """Each parameter, and each part of its memory. NaN equals NaN there."""
    for ours, expected in zip(found["ours"], found["torch's"], strict=True):
        for own, truth in zip(ours[:-1], expected[:-1], strict=True):
            assert own.shape == truth.shape
            scale = np.abs(truth[np.isfinite(truth)]).max(initial=0)
            np.testing.assert_allclose(own, truth, rtol=0, atol=ERROR * scale)
        own, truth = ours[-1][0], expected[-1][0]
        np.testing.assert_allclose(own[:3], truth[:3], rtol=ERROR)  # steps, mean squares
        np.testing.assert_allclose(own[3:], truth[3:], atol=ERROR)  # alignments, planned steps


@needs_triton
class TestInTheInterpreter:
    @pytest.mark.parametrize("name", RULES)
    def test_steps_and_memory_are_those_of_torch(self, interpreted: Interpreted, name: str) -> None:
        """Beyond the planned steps, with a parameter that has no gradient in the second one."""
        sizes = SCALAR_EMPTY_LONG_SHORT
        found = interpreted(trials.compared, RULES[name], sizes, gradients(3, sum(sizes)), rests=[(1, 3)], block=128)
        assert all((parameter != 0).all() for parameter, *_ in found["ours"])
        require_equal(found)
        ours, truth = (np.concatenate([each[0] for each in found[name]]) for name in ("ours", "float64's"))
        assert np.abs(ours - truth).max() <= 2e-6 * np.abs(truth).max()

    @BOTH
    def test_what_never_had_a_gradient_stays_exactly(self, interpreted: Interpreted, config: dict[str, Any]) -> None:
        G = gradients(2, 60)
        G[:, :40:3] = G[:, 40:] = 0.0
        found = interpreted(trials.compared, config, (40, 20), G, block=64)
        (*first, _), (*second, _) = found["ours"]
        for numbers in first:
            assert (numbers[:40:3] == 0).all()
            assert (numbers[1:40:3] != 0).all()
        for numbers in second:
            assert (numbers == 0).all()
        require_equal(found)

    @BOTH
    def test_what_is_not_finite_goes_where_it_goes_in_torch(
        self, interpreted: Interpreted, config: dict[str, Any]
    ) -> None:
        G = gradients(2, 60)
        G[0, 7], G[1, 27] = torch.nan, -torch.inf
        found = interpreted(trials.compared, config, (20, 20, 20), G, block=32)
        finite = [np.isfinite(parameter).any() for parameter, *_ in found["ours"]]
        assert finite == [False, False, True]
        require_equal(found)

    @BOTH
    def test_gradients_of_any_size_are_seen_as_torch_sees_them(
        self, interpreted: Interpreted, config: dict[str, Any]
    ) -> None:
        """Squares that underflow count as no gradient, and those that overflow are infinite."""
        sizes = torch.tensor([1e-30, 1e-18, 1e-12, 1e15, 1e25]).repeat_interleave(16)
        require_equal(interpreted(trials.compared, config, (16,) * 5, gradients(2, 80) * sizes, block=16))

    def test_any_layout_moves_and_memory_may_come_from_torch(self, interpreted: Interpreted) -> None:
        found = interpreted(trials.any_layout)
        assert (found["ours"] != 1).all()
        np.testing.assert_allclose(found["ours"], found["torch's"], rtol=1e-5)

    def test_wrong_arguments_are_named(self, interpreted: Interpreted) -> None:
        said = interpreted(trials.refused)
        assert "state must be a torch.float32 tensor of shape (5, 32) on cpu" in said["state's shape"]
        assert "moving must be a torch.int64 tensor" in said["moving's dtype"]
        assert "numbers must be contiguous" in said["numbers' strides"]
        assert "make one for that rule" in said["another rule"]
        assert "cannot run" in said["a rule too large"]

    def test_the_programs_are_tried_before_they_are_handed_out(self, interpreted: Interpreted) -> None:
        assert interpreted(trials.chosen, False) == ["TritonTensorKernel"]
        kernel, line = interpreted(trials.chosen, True)
        assert kernel == "none"
        assert line.startswith("The Triton kernel is wrong by 1.0e+00 on cpu. This rule runs through torch")


@needs_triton
@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler for CUDA comes with Linux")
class TestCompiled:
    """For cards that need not be here: what the interpreter cannot see."""

    ALL: ClassVar[list[Any]] = [
        pytest.param(name, program, capability, marks=() if (name, capability) == ("1 x 5", 90) else pytest.mark.slow)
        for name in RULES
        for program in ("look", "decide", "move")
        for capability in (80, 90)
    ]

    @pytest.mark.parametrize(("name", "program", "capability"), ALL)
    def test_the_programs_compile(
        self, name: str, program: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        ptx = trials.compiled(RULES[name], program, capability)
        assert "atom." not in ptx  # sums in an order that a scheduler chooses
        assert "red.global" not in ptx
        wide = {line.split()[1] for line in ptx.replace("@%p", "@").splitlines() if ".v4" in line and "global" in line}
        if program != "decide" and "mlp" not in name:
            assert wide  # memory is read and written 16 bytes at a time


class TestOnAGPU:
    pytestmark: ClassVar[list[pytest.MarkDecorator]] = on_gpu

    @pytest.mark.parametrize("name", RULES)
    def test_steps_and_memory_are_those_of_torch(self, name: str) -> None:
        sizes = (1, 0, 2_000_003, 33, 4096)
        require_equal(trials.compared(RULES[name], sizes, gradients(4, sum(sizes)), rests=[(1, 3)], device="cuda:0"))

    def test_an_optimizer_takes_it_and_waits_for_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        parameter, optimizer = optimizer_on_the_gpu()
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert isinstance(optimizer.state[parameter]["memory"].axis, TritonAxis)
        assert not caplog.records

    def test_a_captured_step_is_the_step(self) -> None:
        parameter, optimizer = optimizer_on_the_gpu()
        other, beside = optimizer_on_the_gpu()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            optimizer.step()
        for _ in range(3):
            graph.replay()
            beside.step()
        assert torch.equal(parameter, other)


def optimizer_on_the_gpu() -> tuple[nn.Parameter, LearnedOptimizer]:
    """After its first step."""
    parameter = nn.Parameter(torch.zeros(5000, device="cuda"))
    parameter.grad = gradients(1, 5000)[0].cuda()
    optimizer = LearnedOptimizer([parameter], trials.make_rule({}))
    optimizer.step()
    return parameter, optimizer


class TestWhereThingsLie:
    def test_tensors_begin_where_wide_loads_do_and_blocks_know_theirs(self) -> None:
        places = Places.of((1, 0, 150, 32), 64, torch.device("cpu"))
        assert places.starts == (0, 16, 16, 176)
        assert places.stride == 208
        assert places.of_blocks.tolist() == [0, 2, 2, 2, 3]
        assert places.table.tolist() == [[1, 0, 0], [0, 16, 1], [150, 16, 1], [32, 176, 4]]

    def test_the_table_of_a_step_is_copied_where_something_changed(self) -> None:
        moving = Moving(2, torch.device("cpu"))
        table = moving.table([16, 0], [32, 0], [1.0, 0.5])
        assert table[:, :2].tolist() == [[16, 32], [0, 0]]
        assert table[:, 2].int().view(torch.float32).tolist() == [1.0, 0.5]
        table[0, 0] = 7
        assert moving.table([16, 0], [32, 0], [1.0, 0.5])[0, 0] == 7
        assert moving.table([16, 0], [32, 0], [1.0, -0.25])[1, 2].int().view(torch.float32) == -0.25
        assert aligned([16, 32, 0])
        assert not aligned([16, 36])

    def test_what_the_programs_cannot_run_goes_to_torch(self) -> None:
        cpu = torch.device("cpu")
        for config, reason in (
            ({"hidden_size": 65}, "at most 64 units of hyper rules"),
            ({**MLP, "hidden_size": 33}, "at most 32 units of mlp rules"),
            ({**MLP, "input": "momenta"}, "mlp rules that look at tensors"),
            ({"kind": "lstm"}, "the kinds hyper and mlp alone"),
        ):
            refusal = triton_tensor_kernel(build({"kind": "hyper", **config}), cpu, choice="auto")
            assert isinstance(refusal, Refusal)
            assert reason in refusal.reason
        off = triton_tensor_kernel(trials.make_rule({}), cpu, choice="off")
        assert isinstance(off, Refusal)
        assert "GRADSMITH_TRITON=off" in off.reason
