"""The kernel whose products have factors in bfloat16, against torch's own rounding and against float32.

Its layout, packing and sums are the same with AVX512-BF16 and without: there, one instruction multiplies and adds
pairs, and two round them; here, float32 instructions do. So what runs on this CPU tests all but those three.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradsmith.rules import LSTMRule, build
from gradsmith.rules.kernels.native import BuildSettings, NativeKernel, Sizes, Target, native_kernel
from gradsmith.rules.kernels.native.__main__ import main as prebuilding
from gradsmith.rules.kernels.native.build import BuildFailed, built_here
from gradsmith.rules.kernels.native.library import Library, NeedsAnotherCPU
from gradsmith.rules.kernels.native.targets import AVX512_BF16, TARGETS, has_avx512_bf16, targets_here
from tests.compiler import COMPILER, compiled

pytestmark = compiled

STEPS = 20
BEST = targets_here(bfloat16=True)[0]
# Sixteen lanes, as AVX512-BF16 has them, on the instructions that this CPU has; and the fewest. -O1 compiles fast.
WIDE = Target("wide", 16, (*targets_here()[0].flags, "-O1"))
NARROW = Target("narrow", TARGETS[-1].width, (*TARGETS[-1].flags, "-O1"))
RULES: dict[str, dict[str, Any]] = {
    "2x7 log_sign": {"hidden_size": 7, "layers": 2, "input": "log_sign"},  # an odd row is left over
    "1x4 raw": {"hidden_size": 4, "layers": 1, "input": "raw"},
}
CASES = [("2x7 log_sign", BEST), ("1x4 raw", WIDE), ("1x4 raw", NARROW)]

Kernels = Callable[[str, Target], tuple[LSTMRule, NativeKernel]]


class Rounded(torch.autograd.Function):
    """matrix @ columns with factors rounded to bfloat16, and so are those of its gradients."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(matrix, columns)
        return half(matrix) @ half(columns)

    @staticmethod
    def backward(ctx: Any, *worth: Tensor) -> tuple[Tensor, Tensor]:
        matrix, columns = ctx.saved_tensors
        return half(worth[0]) @ half(columns).t(), half(matrix).t() @ half(worth[0])


def half(numbers: Tensor) -> Tensor:
    return numbers.bfloat16().to(numbers.dtype)


class Emulated:
    """The rule's formulas in float64, with products of numbers that torch rounds to bfloat16."""

    def __init__(self, rule: LSTMRule) -> None:
        self.rule: Any = build(rule.config()).double()
        self.rule.load_state_dict(rule.state_dict())

    def __call__(self, gradient: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        rule, after = self.rule, []
        signal = rule.features.read(gradient, ())[0].t()
        for layer, hidden, cell in zip(rule.layers, state[0::2], state[1::2], strict=True):
            products = Rounded.apply(layer.weight, torch.cat((signal, hidden.t())))
            i, f, g, o = (products + layer.bias[:, None]).chunk(4)
            memory = f.sigmoid() * cell.t() + i.sigmoid() * g.tanh()
            signal = o.sigmoid() * memory.tanh()
            after += [signal.t(), memory.t()]
        return rule.output_scale * (rule.readout_weight @ signal + rule.readout_bias), after


@pytest.fixture(scope="session")
def settings() -> BuildSettings:
    return BuildSettings(BuildSettings.from_environment().cache, compiler=COMPILER)


@pytest.fixture(scope="session")
def kernels(settings: BuildSettings) -> Kernels:
    def made(name: str, target: Target) -> tuple[LSTMRule, NativeKernel]:
        rule = build({"kind": "lstm", **RULES[name]})
        assert isinstance(rule, LSTMRule)
        rule.initialise(torch.Generator().manual_seed(0))
        sizes = Sizes(rule.hidden_size, len(rule.layers), rule.features.width, bfloat16=True)
        return rule, NativeKernel(rule, Library(built_here(sizes, target, settings), sizes), target)

    return made


def drawn(coordinates: int, *, steps: int = STEPS, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    G, D = torch.randn(2, steps, coordinates, generator=generator)
    return G, D


def distance(found: Tensor, truth: Tensor) -> float:
    """Euclidean, over the length of the truth."""
    return ((found.double() - truth).norm() / truth.norm()).item()


@pytest.mark.long
@pytest.mark.parametrize(("name", "target"), CASES, ids=[f"{name} {target.name}" for name, target in CASES])
@pytest.mark.parametrize("coordinates", [1, 33, 1000])
def test_products_are_those_of_rounded_factors(kernels: Kernels, name: str, target: Target, coordinates: int) -> None:
    """Sums differ by float32's error, and a state that lies between two bfloat16 numbers is now and then rounded to the
    other one. Numbers that are not rounded are thirty times as far away: see below."""
    rule, kernel = kernels(name, target)
    emulated, (G, D) = Emulated(rule), drawn(coordinates)
    state = list(emulated.rule.initial_state(coordinates, dtype=torch.float64))
    updates = []
    for gradient in G.double():
        update, state = emulated(gradient, state)
        updates.append(update)
    moved = torch.stack(updates)
    truth = torch.autograd.grad((moved * D.double()).sum(), list(emulated.rule.parameters()))
    weights, packed, theta = kernel.weights(rule), kernel.initial_state(coordinates), torch.zeros(coordinates)
    for gradient in G:
        kernel.step(weights, theta, gradient, packed)
    found = kernel.window_gradient(weights, kernel.initial_state(coordinates), G, D)
    expected = torch.cat([piece.reshape(-1) for piece in truth])
    assert distance(theta, moved.detach().sum(0)) < 1e-4
    assert distance(found, expected) < 1e-4


def test_one_step_is_rounded_to_nearest_even(kernels: Kernels) -> None:
    """A state in float32 leaves no bit in doubt: only the sums' error remains. Ties are among the numbers."""
    rule, kernel = kernels("1x4 raw", NARROW)
    gradient, _ = drawn(64, steps=1)
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2 - 2**-8, 0.0, -0.0, 1e-30, 3e4])
    gradient[0, : len(ties)] = ties
    state = tuple(0.3 * torch.randn(64, 4, generator=torch.Generator().manual_seed(n)) for n in range(2))
    with torch.no_grad():
        update, after = Emulated(rule)(gradient[0].double(), [memory.double() for memory in state])
    theta, packed = torch.zeros(64), kernel.pack(state)
    kernel.step(kernel.weights(rule), theta, gradient[0], packed)
    assert distance(theta, update) < 5e-7
    for memory, truth in zip(kernel.unpack(packed, 64), after, strict=True):
        assert distance(memory, truth) < 5e-7


def test_the_meta_gradient_differs_from_that_of_float32_by_less_than_a_hundredth(
    kernels: Kernels, settings: BuildSettings
) -> None:
    """The bound of the documents. That it is more than 1e-4 says that the factors are rounded at all."""
    rule, kernel = kernels("2x7 log_sign", BEST)
    plain = native_kernel(rule, settings=settings)
    assert isinstance(plain, NativeKernel)
    assert (plain.target, plain.bfloat16, plain.emulates) == (targets_here()[0], False, False)
    for seed in range(3):
        G, D = drawn(1000, seed=seed)
        truth, found = (
            each.window_gradient(each.weights(rule), each.initial_state(1000), G, D) for each in (plain, kernel)
        )
        assert 1e-4 < distance(found, truth.double()) < 1e-2


def test_threads_tapes_and_neighbours_change_no_bit(kernels: Kernels) -> None:
    rule, kernel = kernels("2x7 log_sign", BEST)
    weights, (G, D) = kernel.weights(rule), drawn(1003)
    results = []
    for threads in (1, 3):
        kernel.threads = threads
        tape = kernel.tape(1003, STEPS, 1 << 24) if threads == 3 else None
        theta, state = torch.zeros(1003), kernel.initial_state(1003)
        for row, gradient in enumerate(G):
            kernel.step(weights, theta, gradient, state, tape, row)
        results.append((theta, state, kernel.window_gradient(weights, kernel.initial_state(1003), G, D, tape)))
    assert all(map(torch.equal, *results))
    alone = torch.zeros(1)
    kernel.step(weights, alone, G[0, 70:71], kernel.initial_state(1))
    among = torch.zeros(1003)
    kernel.step(weights, among, G[0], kernel.initial_state(1003))
    assert torch.equal(alone, among[70:71])


def test_what_is_not_finite_stays_so(kernels: Kernels) -> None:
    rule, kernel = kernels("1x4 raw", NARROW)
    gradient, theta = torch.tensor([1.0, float("nan"), 1.0]), torch.zeros(3)
    kernel.step(kernel.weights(rule), theta, gradient, kernel.initial_state(3))
    assert theta.isnan().tolist() == [False, True, False]


def test_the_best_instructions_are_chosen_and_the_kernel_says_whether_it_emulates(settings: BuildSettings) -> None:
    rule = build({"kind": "lstm", **RULES["2x7 log_sign"]})
    kernel = native_kernel(rule, settings=settings, bfloat16=True)
    assert isinstance(kernel, NativeKernel)
    assert (kernel.target, kernel.bfloat16, kernel.emulates) == (BEST, True, BEST != AVX512_BF16)


def test_it_is_compiled_beforehand_for_every_instruction_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    compiler = tmp_path / "c++"  # it knows every option and writes nothing into the file
    compiler.write_text("#!/bin/sh\necho c++ 1.0\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert prebuilding([str(tmp_path / "kernels"), "--rule", "1x4:raw:bfloat16"]) == 0
    made = [Path(line).name.rpartition("-")[0] for line in capsys.readouterr().out.splitlines()]
    assert made == [f"lstm-1x4-in1-bfloat16-{name}" for name in ("avx512_bf16", "avx512", "avx2", "portable")]
    with pytest.raises(SystemExit):
        prebuilding([str(tmp_path), "--rule", "1x4:raw:float16"])
    assert "or 2x20:log_sign:bfloat16 for products in bfloat16" in capsys.readouterr().err


def test_linux_says_which_cpu_multiplies_bfloat16(tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("model name\t: avx512_bf16\nflags\t\t: fpu avx512f avx512_vnni\n")
    assert not has_avx512_bf16(facts)
    facts.write_text("flags\t\t: fpu avx512f avx512_bf16 amx_bf16\n")
    assert has_avx512_bf16(facts)
    assert not has_avx512_bf16(tmp_path / "missing")


def test_the_kernel_for_avx512_bf16_has_its_instructions_and_refuses_another_cpu(settings: BuildSettings) -> None:
    """It is compiled wherever the compiler knows the flag, and runs nowhere that lacks the instructions."""
    if not AVX512_BF16.compiles_on(platform.machine()):
        pytest.skip("this is no x86 machine")
    sizes = Sizes(hidden=4, layers=1, inputs=1, bfloat16=True)
    quickly = replace(AVX512_BF16, flags=(*AVX512_BF16.flags, "-O0"))
    try:
        path = built_here(sizes, quickly, settings)
    except BuildFailed as error:
        pytest.skip(f"the compiler does not know AVX512-BF16: {error}")
    if has_avx512_bf16():
        assert Library(path, sizes).block == 32
    else:
        with pytest.raises(NeedsAnotherCPU, match="needs instructions that this CPU lacks"):
            Library(path, sizes)
    if (objdump := shutil.which("objdump")) is None:
        pytest.skip("objdump, which reads instructions, is not here")
    said = subprocess.run([objdump, "-d", str(path)], capture_output=True, text=True, check=True).stdout
    assert "vdpbf16ps" in said
    assert "vcvtne2ps2bf16" in said
