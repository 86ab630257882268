"""The Triton programs against the rule in float64: in Triton's interpreter everywhere, compiled where there is a GPU.

The interpreter takes 50 ms for a block and step, so problems are small.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from gradsmith.rules import build
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.triton import Layout, choice_from_environment, triton_kernel
from tests.sdk import triton_trials as trials
from tests.sdk.triton_here import Interpreted, needs_triton, on_gpu

LOG_SIGN = {"hidden_size": 20, "layers": 2, "input": "log_sign"}
RAW = {"hidden_size": 7, "layers": 1, "input": "raw"}
RULES = {
    "2x20 log_sign": LOG_SIGN,
    "1x7 raw": RAW,
    "1x20 log_sign": {"hidden_size": 20, "layers": 1, "input": "log_sign", "p": 7.0, "output_scale": 1.0},
    "3x4 raw": {"hidden_size": 4, "layers": 3, "input": "raw", "output_scale": 2.0},
    "1x16 raw": {"hidden_size": 16, "layers": 1, "input": "raw"},  # nothing is padded
    "1x32 log_sign": {"hidden_size": 32, "layers": 1, "input": "log_sign"},
}
# Coordinates and steps; a block is 64 here.
CASES = [
    *(("2x20 log_sign", coordinates, steps) for coordinates, steps in ((1, 1), (31, 1), (33, 3))),
    *(("1x7 raw", coordinates, steps) for coordinates, steps in ((1, 1), (31, 3), (33, 1), (65, 1))),
    *((name, 33, 2) for name in RULES if name not in ("2x20 log_sign", "1x7 raw")),
]


@needs_triton
class TestInTheInterpreter:
    @pytest.mark.parametrize(("name", "coordinates", "steps"), CASES)
    def test_step_and_window_are_those_of_the_rule(
        self, interpreted: Interpreted, name: str, coordinates: int, steps: int
    ) -> None:
        found = interpreted(trials.errors, RULES[name], coordinates, steps, block=64)
        assert found.pop("guard") == 0
        assert found == {what: pytest.approx(0, abs=1e-5) for what in found}

    def test_one_program_adds_up_several_blocks_as_several_programs_do(self, interpreted: Interpreted) -> None:
        for programs in (1, 2, 3):  # 3 blocks: 3 a program, 2 and 1, one each
            found = interpreted(trials.errors, RAW, 45, 1, block=16, programs=programs)
            assert max(found.values()) < 1e-5, programs

    def test_the_same_call_gives_the_same_bits(self, interpreted: Interpreted) -> None:
        first, second = interpreted(trials.twice, RAW, 20, 1, block=16)
        assert np.array_equal(first, second)

    @pytest.mark.parametrize("config", [RULES["1x20 log_sign"], RAW], ids=["log_sign", "raw"])
    @pytest.mark.parametrize("value", [0.0, 1e30, -1e30, 1e-40])
    def test_gradients_at_the_ends_of_the_scale(
        self, interpreted: Interpreted, config: dict[str, Any], value: float
    ) -> None:
        found = interpreted(trials.special, config, value)
        for what in ("theta", "gradient"):
            truth = found[f"{what} of the rule"]
            assert np.isfinite(truth).all()
            assert np.abs(found[what] - truth).max() <= 1e-5 * np.abs(truth).max()

    @pytest.mark.parametrize("config", [RULES["1x20 log_sign"], RAW], ids=["log_sign", "raw"])
    def test_a_nan_stays_with_its_coordinate_and_shows_in_the_gradient(
        self, interpreted: Interpreted, config: dict[str, Any]
    ) -> None:
        found = interpreted(trials.one_nan, config)
        assert np.flatnonzero(np.isnan(found["theta"])).tolist() == [5]
        assert np.array_equal(np.isnan(found["gradient"]), np.isnan(found["gradient of the rule"]))
        assert np.isnan(found["gradient"]).sum() > 0.9 * found["gradient"].size

    def test_bf16_products_cost_half_a_percent_of_the_meta_gradient(self, interpreted: Interpreted) -> None:
        found = interpreted(trials.errors, LOG_SIGN, 64, 3, precision="bf16", block=64)
        assert found.pop("guard") == 0
        assert found.pop("theta") < 2e-3
        assert max(found.values()) < 1e-2  # of the largest value of each weight tensor
        assert max(found.values()) > 1e-4  # it is on

    def test_bf16_rounds_to_nearest_even_as_torch_does(self, interpreted: Interpreted) -> None:
        drawn = torch.randn(48, generator=torch.Generator().manual_seed(0)).tolist()
        ties = [1.00390625, 1.01171875, -1.00390625, 1.9999999, 3.3e38, 1e-39, 0.0, -0.0]
        numbers = drawn + ties + [float("inf"), -float("inf"), 1e30, -1e30, 2.0, 0.1, 1e-20, 255.5]
        truth = torch.tensor(numbers).bfloat16().float().tolist()
        assert interpreted(trials.rounded, numbers) == truth

    def test_wrong_arguments_are_named(self, interpreted: Interpreted) -> None:
        said = interpreted(trials.refused)
        assert "theta must be a torch.float32 tensor of shape (5,) on cpu, not torch.float64" in said["theta's dtype"]
        assert "gradient must be" in said["gradient's length"]
        assert "state must be" in said["state's shape"]
        assert "theta must be contiguous" in said["theta's strides"]
        assert "D must be" in said["D's shape"]
        assert "make one for that rule" in said["another rule"]
        assert "use the torch backend" in said["a rule too large"]

    def test_the_backend_follows_the_weights_from_window_to_window(self, interpreted: Interpreted) -> None:
        assert interpreted(trials.windows_of_the_backend) == [pytest.approx(0, abs=1e-5)] * 3

    def test_a_kernel_is_tried_before_it_is_handed_out(self, interpreted: Interpreted) -> None:
        assert interpreted(trials.chosen, RAW) == ["TritonKernel"]
        kernel, line = interpreted(trials.chosen, RAW, break_it="wrong")
        assert kernel == "none"
        assert line.startswith("The Triton kernel is wrong by 1.0e+00 on cpu. This rule runs through torch")
        kernel, line = interpreted(trials.chosen, RAW, break_it="fails")
        assert kernel == "none"
        assert line.startswith("No Triton kernel on cpu (TypeError: 'NoneType'")


@needs_triton
@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler for CUDA comes with Linux")
class TestCompiled:
    """For cards that need not be here: what the interpreter cannot see."""

    SMALL: ClassVar[list[Any]] = [("step", RAW, 80, "float32"), ("window_gradient", RAW, 80, "float32")]
    FULL: ClassVar[list[Any]] = [
        pytest.param(program, config, capability, precision, marks=pytest.mark.slow)
        for program in ("step", "window_gradient")
        for config in (LOG_SIGN, {"hidden_size": 32, "layers": 4, "input": "raw"})
        for capability in (80, 90)
        for precision in ("float32", "bf16")
    ]

    @pytest.mark.long
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize(("program", "config", "capability", "precision"), [*SMALL, *FULL])
    def test_the_programs_compile(
        self,
        program: str,
        config: dict[str, Any],
        capability: int,
        precision: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        ptx, shared_bytes = trials.compiled(config, program, capability, precision=precision)
        assert shared_bytes <= 99 * 1024  # what any card since Ampere has
        assert "mma" in ptx  # tensor cores
        assert "bf16" in ptx if precision == "bf16" else "tf32" in ptx
        assert "atom." not in ptx  # sums in an order that a scheduler chooses
        assert "red.global" not in ptx
        assert "cp.async" not in ptx  # reads of the scratch memory ahead of the writes


class TestOnAGPU:
    pytestmark: ClassVar[list[pytest.MarkDecorator]] = on_gpu

    @pytest.mark.parametrize("name", RULES)
    @pytest.mark.parametrize(("coordinates", "steps"), [(1, 1), (31, 20), (33, 20), (15_910, 20)])
    def test_step_and_window_are_those_of_the_rule(self, name: str, coordinates: int, steps: int) -> None:
        found = trials.errors(RULES[name], coordinates, steps, device="cuda:0")
        assert found.pop("guard") == 0
        assert found == {what: pytest.approx(0, abs=1e-5) for what in found}

    def test_bf16_products_cost_half_a_percent_of_the_meta_gradient(self) -> None:
        found = trials.errors(LOG_SIGN, 15_910, 20, device="cuda:0", precision="bf16")
        assert 1e-5 < max(found.values()) < 2e-2

    def test_the_same_call_gives_the_same_bits(self) -> None:
        first, second = trials.twice(LOG_SIGN, 15_910, 20, device="cuda:0")
        assert np.array_equal(first, second)

    def test_the_kernel_is_handed_out(self, caplog: pytest.LogCaptureFixture) -> None:
        assert not isinstance(triton_kernel(build({"kind": "lstm"}), torch.device("cuda"), choice="auto"), Refusal)
        assert not caplog.records


class TestTheLayout:
    @pytest.mark.parametrize("name", RULES)
    def test_padding_loses_no_weight_and_adds_only_zeros(self, name: str) -> None:
        rule = trials.make_rule(RULES[name])
        layout = Layout.of(rule)
        assert layout is not None
        layout.to(torch.device("cpu"))
        padded = layout.padded_weights(rule)
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in rule.parameters()])
        assert torch.equal(layout.unpadded(padded), flat)
        assert padded.count_nonzero() == flat.count_nonzero()

    def test_sizes_beyond_the_programs_go_to_torch(self) -> None:
        for config in ({"hidden_size": 33}, {"hidden_size": 33, "layers": 4}):
            assert Layout.of(trials.make_rule(config)) is None
            assert isinstance(triton_kernel(trials.make_rule(config), torch.device("cpu"), choice="auto"), Refusal)


class TestTheChoice:
    def test_the_setting(self) -> None:
        assert choice_from_environment({}) == "auto"
        assert choice_from_environment({"GRADSMITH_TRITON": " BF16 "}) == "bf16"
        with pytest.raises(ValueError, match="GRADSMITH_TRITON is 'fast'; choose one of auto, off, bf16"):
            choice_from_environment({"GRADSMITH_TRITON": "fast"})

    def test_off_is_off(self, caplog: pytest.LogCaptureFixture) -> None:
        assert isinstance(triton_kernel(build({"kind": "lstm"}), torch.device("cpu"), choice="off"), Refusal)
        assert not caplog.records

    @pytest.mark.long
    def test_without_the_package_one_line_says_what_is_slower(self) -> None:
        program = """
            import logging, sys
            sys.modules["triton"] = None  # as if it were not installed
            logging.basicConfig(format="%(message)s")
            import torch
            from gradsmith.rules import build
            from gradsmith.rules.kernels.triton import triton_kernel
            for hidden in (20, 20, 7):
                rule = build({"kind": "lstm", "hidden_size": hidden})
                print(triton_kernel(rule, torch.device("cuda", 0)).reason)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == 1
        assert "Triton cannot be imported" in done.stderr
        assert "pip install triton" in done.stderr
