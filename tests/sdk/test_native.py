"""The native kernel against the rule in float64, and everything that may go wrong on the way to a compiled kernel."""

from __future__ import annotations

import functools
import logging
import os
import platform
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gradsmith.rules import LSTMRule, State, build
from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import (
    TARGETS,
    BuildSettings,
    NativeKernel,
    Sizes,
    Target,
    check_compiler,
    native_kernel,
)
from gradsmith.rules.kernels.native.__main__ import main as prebuilding
from gradsmith.rules.kernels.native.build import BuildFailed, built_here, file_name
from gradsmith.rules.kernels.native.library import Library
from gradsmith.rules.kernels.native.targets import targets_here
from gradsmith.rules.kernels.sizes import USUAL
from tests.compiler import COMPILER, compiled

pytestmark = compiled

torch.set_num_threads(1)

STEPS = 20
BEST = targets_here()[0]
PORTABLE = TARGETS[-1]
# What AVX-512 runs, on the widest vectors that this CPU has: slow, but it is the same code, lanes and tails.
WIDE = Target("wide", 16, (*BEST.flags, "-O1"))  # at -O3 it takes 12 s to compile
# The loops and tails of other sizes are the same code; what -O3 makes of it, those say that other tests need as well.
ROUGH = replace(BEST, name=f"rough-{BEST.name}", flags=(*BEST.flags, "-O1"))
RULES = {
    "2x20 log_sign": {"hidden_size": 20, "layers": 2, "input": "log_sign"},
    "3x4 log_sign": {"hidden_size": 4, "layers": 3, "input": "log_sign", "p": 7.0, "output_scale": 1.0},
    "1x32 raw": {"hidden_size": 32, "layers": 1, "input": "raw", "output_scale": 2.0},
    "2x7 log_sign": {"hidden_size": 7, "layers": 2, "input": "log_sign"},  # no tile of a product divides 7 or 28
}
SMALL = {"hidden_size": 4, "layers": 1, "input": "raw"}
# Every instruction set that this CPU has, so that a green run says something about machines with fewer; and the
# widest lanes where they are missing.
INSTRUCTIONS = (*targets_here(), *(() if BEST.width == WIDE.width else (WIDE,)))
VARIANTS = [("2x20 log_sign", target) for target in INSTRUCTIONS]
VARIANTS += [("2x7 log_sign", BEST), ("3x4 log_sign", ROUGH), ("1x32 raw", ROUGH)]
COORDINATES = [1, 31, 32, 33, 1000, 4099]
CASES = [
    pytest.param(name, target, coordinates, id=f"{name} {target.name} {coordinates}")
    for name, target in VARIANTS
    for coordinates in COORDINATES
    if coordinates < 2000 or (target == BEST and name == "2x20 log_sign")
]

Kernels = Callable[[str, Target], NativeKernel]


def target_of(name: str) -> Target:
    return next(target for variant, target in VARIANTS if variant == name)


def make_rule(name: str = "2x20 log_sign", seed: int = 0, dtype: torch.dtype = torch.float32) -> LSTMRule:
    rule = build({"kind": "lstm", **RULES[name]})
    rule.initialise(torch.Generator().manual_seed(seed))
    assert isinstance(rule, LSTMRule)
    return rule.to(dtype)


@pytest.fixture(scope="session")
def settings() -> BuildSettings:
    """One cache for all tests, also when several processes run them: that of tests/conftest.py."""
    return BuildSettings(BuildSettings.from_environment().cache, compiler=COMPILER)


@pytest.fixture(scope="session")
def kernels(settings: BuildSettings) -> Kernels:
    """A kernel by rule and target, compiled by the first test that wants it."""

    @functools.cache
    def made(name: str, target: Target) -> NativeKernel:
        rule = make_rule(name)
        sizes = rule.settings.costs().sizes
        assert sizes is not None
        return NativeKernel(rule, Library(built_here(sizes, target, settings), sizes), target)

    return made


def some_gradients(coordinates: int, steps: int = STEPS) -> Tensor:
    """Many orders of magnitude, with zeros, denormals, the log-sign's threshold and huge numbers among them."""
    generator = torch.Generator().manual_seed(coordinates)
    size = torch.exp(4 * torch.randn(steps, coordinates, generator=generator))
    gradients = size * torch.randn(steps, coordinates, generator=generator)
    odd = torch.tensor([0.0, -0.0, 1e-40, -1e-38, 4.539993e-05, -4.5399e-05, 1e30, -1e30, 1.0, 1e-12])
    places = torch.arange(0, gradients.numel(), 7)
    gradients.view(-1)[places] = odd[torch.arange(len(places)) % len(odd)]
    return gradients


def some_state(rule: LSTMRule, coordinates: int) -> State:
    generator = torch.Generator().manual_seed(1)
    zeros = rule.initial_state(coordinates, dtype=torch.float32)
    return tuple(0.3 * torch.randn(memory.shape, generator=generator) for memory in zeros)


def in_double(rule: LSTMRule) -> LSTMRule:
    twin = build(rule.config()).double()
    twin.load_state_dict({name: value.double() for name, value in rule.state_dict().items()})
    assert isinstance(twin, LSTMRule)
    return twin


def run(rule: LSTMRule, gradients: Tensor, state: State) -> tuple[Tensor, State]:
    """Every update, (steps, coordinates), and the last state."""
    updates = []
    for gradient in gradients:
        update, state = rule(gradient, state)
        updates.append(update)
    return torch.stack(updates), state


def worst_share(found: Tensor, truth: Tensor) -> float:
    """The largest difference over the largest value."""
    return ((found.double() - truth).abs().max() / truth.abs().max()).item()


class TestSizes:
    """What is predicted without a compiler, against the structs of every kernel that runs here."""

    @pytest.mark.long
    @pytest.mark.parametrize("target", INSTRUCTIONS, ids=lambda target: target.name)
    @pytest.mark.parametrize("steps", [0, 1, 20, 1000])
    def test_the_workspace_of_a_window(self, kernels: Kernels, target: Target, steps: int) -> None:
        kernel = kernels("2x20 log_sign", target)
        assert kernel.workspace_bytes(steps) == Sizes(20, 2, 2).workspace_bytes(steps, target.width)

    @pytest.mark.long
    @pytest.mark.parametrize("name", RULES)
    def test_the_workspace_of_rules_of_all_sizes(self, kernels: Kernels, name: str) -> None:
        kernel, sizes = kernels(name, target_of(name)), make_rule(name).settings.costs().sizes
        assert sizes is not None
        assert kernel.workspace_bytes(7) == sizes.workspace_bytes(7, BEST.width)

    def test_a_kernel_whose_workspace_is_another_is_refused(self, kernels: Kernels, settings: BuildSettings) -> None:
        class Less(Sizes):
            def workspace_bytes(self, steps: int, width: int) -> int:
                return super().workspace_bytes(steps, width) - 4

        kernels("2x20 log_sign", BEST)
        with pytest.raises(BuildFailed, match="is not for lstm-2x20-in2"):
            Library(built_here(Sizes(20, 2, 2), BEST, settings), Less(20, 2, 2))


class TestAgainstTheRule:
    @pytest.mark.parametrize(("name", "target", "coordinates"), CASES)
    def test_steps_are_those_of_the_rule(self, kernels: Kernels, name: str, target: Target, coordinates: int) -> None:
        rule, kernel = make_rule(name), kernels(name, target)
        gradients, state = some_gradients(coordinates), some_state(rule, coordinates)
        with torch.no_grad():
            updates, after = run(in_double(rule), gradients.double(), tuple(memory.double() for memory in state))
        weights, packed = kernel.weights(rule), kernel.pack(state)
        guard = torch.full((coordinates + 64,), 7.0)  # nothing beyond the coordinates is written
        theta = guard[16 : 16 + coordinates].zero_()
        for gradient in gradients:
            kernel.step(weights, theta, gradient, packed)
        assert worst_share(theta, updates.sum(0)) < 2e-6
        for memory, truth in zip(kernel.unpack(packed, coordinates), after, strict=True):
            assert worst_share(memory, truth) < 2e-6
        assert torch.all(guard[:16] == 7.0)
        assert torch.all(guard[16 + coordinates :] == 7.0)

    @pytest.mark.parametrize(("name", "target", "coordinates"), CASES)
    def test_the_gradient_of_a_window_is_that_of_autograd(
        self, kernels: Kernels, name: str, target: Target, coordinates: int
    ) -> None:
        rule, kernel = make_rule(name), kernels(name, target)
        gradients, state = some_gradients(coordinates), some_state(rule, coordinates)
        D = torch.randn(STEPS, coordinates, generator=torch.Generator().manual_seed(2))
        twin = in_double(rule)
        updates, _ = run(twin, gradients.double(), tuple(memory.double() for memory in state))
        truth = torch.autograd.grad((updates * D.double()).sum(), list(twin.parameters()))
        snapshot = kernel.pack(state)
        kept = snapshot.clone()
        found = kernel.window_gradient(kernel.weights(rule), snapshot, gradients, D)
        assert torch.equal(snapshot, kept)
        sizes = [piece.numel() for piece in truth]
        for piece, expected in zip(found.split(sizes), truth, strict=True):
            assert worst_share(piece, expected.reshape(-1)) < 1e-5

    @pytest.mark.parametrize("steps", [1, 3, 137])
    def test_windows_of_any_length(self, kernels: Kernels, steps: int) -> None:
        rule, kernel = make_rule(), kernels("2x20 log_sign", BEST)
        gradients, D = some_gradients(40, steps), torch.ones(steps, 40)
        twin = in_double(rule)
        updates, _ = run(twin, gradients.double(), twin.initial_state(40, dtype=torch.float64))
        truth = torch.autograd.grad(updates.sum(), list(twin.parameters()))
        found = kernel.window_gradient(kernel.weights(rule), kernel.initial_state(40), gradients, D)
        assert worst_share(found, torch.cat([piece.reshape(-1) for piece in truth])) < 1e-5

    def test_no_coordinates_and_no_steps(self, kernels: Kernels) -> None:
        rule, kernel = make_rule(), kernels("2x20 log_sign", BEST)
        weights = kernel.weights(rule)
        kernel.step(weights, torch.zeros(0), torch.zeros(0), kernel.initial_state(0))
        for steps, coordinates in ((0, 0), (3, 0), (0, 5)):
            empty = torch.zeros(steps, coordinates)
            found = kernel.window_gradient(weights, kernel.initial_state(coordinates), empty, empty)
            assert torch.equal(found, torch.zeros(5141))

    @pytest.mark.parametrize("name", ["2x20 log_sign", "1x32 raw"])
    @pytest.mark.parametrize("size", [0.0, 1e-40, 1e30, 3e38])
    def test_gradients_of_one_extreme_size(self, kernels: Kernels, name: str, size: float) -> None:
        rule, kernel = make_rule(name), kernels(name, target_of(name))
        gradient = torch.tensor([size, -size, size])
        with torch.no_grad():
            update, _ = in_double(rule)(gradient.double(), in_double(rule).initial_state(3, dtype=torch.float64))
        theta = torch.zeros(3)
        kernel.step(kernel.weights(rule), theta, gradient, kernel.initial_state(3))
        assert worst_share(theta, update) < 2e-6

    @pytest.mark.parametrize("coordinates", [1, 15, 16, 17, 100])
    def test_packing_and_unpacking_keep_every_bit(self, kernels: Kernels, coordinates: int) -> None:
        kernel = kernels("2x20 log_sign", BEST)
        state = some_state(make_rule(), coordinates)
        packed = kernel.pack(state)
        assert packed.shape == (-(-coordinates // kernel.block), 80, kernel.block)
        for back, memory in zip(kernel.unpack(packed, coordinates), state, strict=True):
            assert torch.equal(back, memory)

    @pytest.mark.parametrize("name", ["2x20 log_sign", "1x32 raw"])
    @pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7F800000, 0xFF800000])
    def test_what_is_not_finite_stays_so_and_harms_no_neighbour(self, kernels: Kernels, name: str, bits: int) -> None:
        """NaN of either sign, one with a payload, and both infinities, against the plain rule in float32."""
        rule, kernel = make_rule(name), kernels(name, target_of(name))
        gradients = some_gradients(40, 3).clamp(-1e6, 1e6)
        gradients[1, 5] = torch.from_numpy(np.array([bits], np.uint32).view(np.float32))[0]
        updates, after = run(rule, gradients, rule.initial_state(40))
        plain = torch.autograd.grad(updates.sum(), list(rule.parameters()))
        weights, theta, packed = kernel.weights(rule), torch.zeros(40), kernel.initial_state(40)
        for gradient in gradients:
            kernel.step(weights, theta, gradient, packed)
        torch.testing.assert_close(theta, updates.detach().sum(0), rtol=1e-5, atol=1e-6, equal_nan=True)
        for memory, truth in zip(kernel.unpack(packed, 40), after, strict=True):
            torch.testing.assert_close(memory, truth.detach(), rtol=1e-5, atol=1e-6, equal_nan=True)
        found = kernel.window_gradient(weights, kernel.initial_state(40), gradients, torch.ones(3, 40))
        assert not torch.all(torch.isfinite(found))
        assert not all(torch.all(torch.isfinite(piece)) for piece in plain)


class TestBits:
    def test_any_number_of_threads_gives_the_same_bits(self, kernels: Kernels) -> None:
        rule, kernel = make_rule(), kernels("2x20 log_sign", BEST)
        weights, gradients = kernel.weights(rule), some_gradients(4099)
        D = torch.randn(STEPS, 4099, generator=torch.Generator().manual_seed(2))
        results = []
        for threads in (1, 2, 3, 64):
            kernel.threads = threads
            theta, packed = torch.zeros(4099), kernel.initial_state(4099)
            kernel.step(weights, theta, gradients[0], packed)
            results.append((theta, packed.clone(), kernel.window_gradient(weights, packed, gradients, D)))
        kernel.threads = 1
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))

    def test_a_coordinate_does_not_see_its_neighbours(self, kernels: Kernels) -> None:
        rule, kernel = make_rule(), kernels("2x20 log_sign", BEST)
        weights, gradients = kernel.weights(rule), some_gradients(100)
        alone, among = torch.zeros(1), torch.zeros(100)
        kernel.step(weights, among, gradients[0], kernel.initial_state(100))
        kernel.step(weights, alone, gradients[0, 70:71], kernel.initial_state(1))
        assert torch.equal(alone, among[70:71])

    def test_instruction_sets_agree(self, kernels: Kernels) -> None:
        rule, gradients = make_rule(), some_gradients(1000)
        D = torch.randn(STEPS, 1000, generator=torch.Generator().manual_seed(2))
        results = []
        for target in INSTRUCTIONS:
            kernel = kernels("2x20 log_sign", target)
            weights = kernel.weights(rule)
            results.append(kernel.window_gradient(weights, kernel.initial_state(1000), gradients, D).double())
        assert worst_share(results[1], results[0]) < 2e-6
        assert worst_share(results[2], results[0]) < 2e-6

    @pytest.mark.parametrize("steps", [1, 2, 5])
    @pytest.mark.parametrize(("blocks", "layers"), [(1, 1), (3, 1), (4, 1), (4, 2)])
    def test_a_tape_changes_no_bit(self, kernels: Kernels, blocks: int, layers: int, steps: int) -> None:
        rule, kernel = make_rule(), kernels("2x20 log_sign", BEST)
        coordinates = 3 * kernel.block + 5
        weights, G = kernel.weights(rule), some_gradients(coordinates)[:steps]
        D = torch.randn(steps, coordinates, generator=torch.Generator().manual_seed(2))
        layer_bytes = steps * 100 * kernel.block * 4
        tape = kernel.tape(coordinates, steps, layer_bytes * blocks * layers)
        assert tape is not None
        assert (tape.blocks, tape.first_layer) == (blocks, 2 - layers)
        tape.data.fill_(float("nan"))
        state, theta = kernel.initial_state(coordinates), torch.zeros(coordinates)
        plain_state, plain_theta = state.clone(), theta.clone()
        for row, gradient in enumerate(G):
            kernel.step(weights, theta, gradient, state, tape, row)
            kernel.step(weights, plain_theta, gradient, plain_state)
        assert torch.equal(theta, plain_theta)
        assert torch.equal(state, plain_state)
        assert tape.data.isfinite().all(), "every number that is kept is written"
        expected = kernel.window_gradient(weights, kernel.initial_state(coordinates), G, D)
        found = kernel.window_gradient(weights, kernel.initial_state(coordinates), G, D, tape)
        assert torch.equal(found, expected)
        # And it is read: another tape gives another gradient.
        tape.data.mul_(0.5)
        assert not torch.equal(kernel.window_gradient(weights, kernel.initial_state(coordinates), G, D, tape), expected)

    def test_no_tape_where_the_budget_holds_nothing(self, kernels: Kernels) -> None:
        kernel = kernels("2x20 log_sign", BEST)
        assert kernel.tape(1000, 20, 20 * 100 * kernel.block * 4 - 1) is None
        assert kernel.tape(0, 20, 1 << 20) is None

    def test_rows_may_be_apart_and_columns_too(self, kernels: Kernels) -> None:
        rule, kernel = make_rule(), kernels("2x20 log_sign", BEST)
        weights, state = kernel.weights(rule), kernel.initial_state(50)
        G, D = some_gradients(50), torch.ones(STEPS, 50)
        expected = kernel.window_gradient(weights, state, G, D)
        wide = torch.full((STEPS + 1, 80), float("nan"))
        wide[:-1, 3:53] = G
        assert torch.equal(kernel.window_gradient(weights, state, wide[:-1, 3:53], D), expected)
        assert torch.equal(kernel.window_gradient(weights, state, G.t().contiguous().t(), D[:1].expand_as(D)), expected)


class TestRefusals:
    def test_a_tape_of_another_window_is_refused(self, kernels: Kernels) -> None:
        rule, kernel = make_rule(), kernels("2x20 log_sign", BEST)
        weights, state = kernel.weights(rule), kernel.initial_state(10)
        tape = kernel.tape(1000, 2, 1 << 24)
        with pytest.raises(ValueError, match=r"for 2 steps of at least .* blocks, not for 1 of 1"):
            kernel.step(weights, torch.zeros(10), torch.zeros(10), state, tape)
        tape = kernel.tape(10, 2, 1 << 24)
        with pytest.raises(ValueError, match="not for 3 of 1"):
            kernel.step(weights, torch.zeros(10), torch.zeros(10), state, tape, 2)
        with pytest.raises(ValueError, match="not for 5 of 1"):
            kernel.window_gradient(weights, state, torch.zeros(5, 10), torch.zeros(5, 10), tape)

    def test_what_the_library_cannot_check_is_checked_before(self, kernels: Kernels) -> None:
        rule, kernel = make_rule(), kernels("2x20 log_sign", BEST)
        weights, state, row = kernel.weights(rule), kernel.initial_state(20), torch.zeros(20)
        with pytest.raises(ValueError, match=r"gradient must be a torch\.float32 tensor of shape \(20,\)"):
            kernel.step(weights, row, torch.zeros(19), state)
        with pytest.raises(ValueError, match=r"theta must be .* not torch\.float64"):
            kernel.step(weights, row.double(), row, state)
        with pytest.raises(ValueError, match="theta must be contiguous"):
            kernel.step(weights, torch.zeros(40)[::2], row, state)
        with pytest.raises(ValueError, match="state must be"):
            kernel.step(weights, torch.zeros(33), torch.zeros(33), state[:1])
        with pytest.raises(ValueError, match="D must be"):
            kernel.window_gradient(weights, state, torch.zeros(3, 20), torch.zeros(2, 20))
        with pytest.raises(ValueError, match="weights must be"):
            kernel.step(torch.zeros(5141), row, row, state)
        with pytest.raises(ValueError, match=r"this kernel is for .* make one for that rule"):
            kernel.weights(make_rule("1x32 raw"))

    def test_autograd_notices_that_theta_has_moved(self, kernels: Kernels) -> None:
        kernel = kernels("2x20 log_sign", BEST)
        theta = torch.ones(3)
        loss = (torch.ones(3, requires_grad=True) * theta).sum()
        kernel.step(kernel.weights(make_rule()), theta, torch.ones(3), kernel.initial_state(3))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


class TestChoice:
    def test_a_kernel_is_chosen_compiled_and_tried(self, settings: BuildSettings) -> None:
        kernel = native_kernel(make_rule(), settings=settings)
        assert not isinstance(kernel, Refusal)
        assert kernel.target == BEST

    def test_off_and_what_has_no_kernel(self, settings: BuildSettings, caplog: pytest.LogCaptureFixture) -> None:
        assert isinstance(native_kernel(make_rule(), settings=replace(settings, instructions="off")), Refusal)
        assert isinstance(native_kernel(LSTMRule(LSTMConfig(hidden_size=200)), settings=settings), Refusal)
        assert not caplog.records

    def test_settings_come_from_the_environment(self) -> None:
        env = {"GRADSMITH_CACHE_DIR": "/a", "GRADSMITH_NATIVE": "AVX2", "GRADSMITH_KERNELS": "/b", "CXX": "clang++"}
        expected = BuildSettings(Path("/a/kernels"), "avx2", Path("/b"), "clang++")
        assert BuildSettings.from_environment(env) == expected
        assert BuildSettings.from_environment({"XDG_CACHE_HOME": "/c"}).cache == Path("/c/gradsmith/kernels")
        with pytest.raises(ValueError, match="GRADSMITH_NATIVE is 'sse9'; choose one of auto, off, avx512"):
            BuildSettings.from_environment({"GRADSMITH_NATIVE": "sse9"})

    def test_a_cpu_without_avx2_runs_the_portable_kernel(self, settings: BuildSettings) -> None:
        """torch can be told that its CPU has nothing; in a process of its own, for it asks once."""
        program = (
            "import sys, pathlib; from gradsmith.rules import build; from gradsmith.rules.kernels.native import *;"
            "made = BuildSettings(pathlib.Path(sys.argv[1]), compiler=sys.argv[2]);"
            "print(native_kernel(build({'kind': 'lstm'}), settings=made).target.name)"
        )
        env = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
        done = subprocess.run(
            [sys.executable, "-c", program, str(settings.cache), str(COMPILER)],
            env=env, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.stdout.strip(), done.stderr) == ("portable", "")

    def test_a_lower_instruction_set_can_be_asked_for(self, settings: BuildSettings) -> None:
        kernel = native_kernel(make_rule(), settings=replace(settings, instructions="portable"))
        assert not isinstance(kernel, Refusal)
        assert (kernel.target, kernel.block) == (PORTABLE, 8)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture(scope="session")
def remembering(settings: BuildSettings, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A C++ compiler that compiles the same source with the same options once, for tests with caches of their own.

    It optimizes nothing, in a third of the time: these tests are of the way to a kernel, not of its speed or bits.
    """
    kept = settings.cache.parent / "remembered"
    kept.mkdir(parents=True, exist_ok=True)
    text = """
        [ "$1" != --version ] || exec COMPILER --version
        eval "out=\\${$#}"
        options=
        for word; do case $word in *.cpp) source=$word ;; "$out") ;; *) options="$options $word" ;; esac; done
        kept=FOLDER/$(cd "$(dirname "$source")" && { echo "$options"; cat ./*.cpp ./*.h; } | cksum | tr " " -)
        [ -f "$kept" ] || { COMPILER "$@" -O0 && cp "$out" "$kept.$$" && mv "$kept.$$" "$kept"; } || exit
        exec cp "$kept" "$out"
    """
    text = text.replace("COMPILER", f"'{COMPILER}'").replace("FOLDER", f"'{kept}'")
    return script(tmp_path_factory.mktemp("compiler") / "c++", text)


class TestWhatMayGoWrong:
    def test_a_broken_compiler_costs_one_log_line(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        broken = script(tmp_path / "cc", 'test "$1" = --version && exit 0; echo "disk on fire" >&2; exit 3')
        settings = BuildSettings(tmp_path / "cache", compiler=broken)
        for _ in range(3):
            assert isinstance(native_kernel(make_rule(), settings=settings), Refusal)
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert "status 3 and said: disk on fire; set CXX" in record.message
        assert "runs through torch, more slowly" in record.message
        assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))

    def test_no_compiler(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert isinstance(native_kernel(make_rule(), settings=BuildSettings(tmp_path)), Refusal)
        assert "there is no C++ compiler; install one" in caplog.text

    def test_a_compiler_that_does_not_know_the_best_instructions(
        self, tmp_path: Path, remembering: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        if BEST == PORTABLE:
            pytest.skip("this CPU has one instruction set only")
        old = script(tmp_path / "cc", f'case "$*" in *-mfma*) exit 1;; esac; exec {remembering} "$@"')
        rule = build({"kind": "lstm", **SMALL})
        kernel = native_kernel(rule, settings=BuildSettings(tmp_path, compiler=old))
        assert not isinstance(kernel, Refusal)
        assert kernel.target == PORTABLE
        assert "uses only portable" in caplog.text

    def test_a_kernel_that_computes_something_else_is_refused(
        self, tmp_path: Path, remembering: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        wrong = script(
            tmp_path / "cc",
            'test "$1" = --version && exit 0\n'
            'for a in "$@"; do case "$a" in *.cpp) src="$a";; esac; done\n'
            f'cp -r "$(dirname "$src")" {tmp_path}/wrong\n'
            f"sed -i s/-2.88539008178f/-2.886f/ {tmp_path}/wrong/vectors.h\n"
            f'exec {remembering} $(echo "$@" | sed "s|$src|{tmp_path}/wrong/kernel.cpp|")',
        )
        rule = build({"kind": "lstm", **SMALL})
        settings = BuildSettings(tmp_path, "portable", compiler=wrong)
        assert isinstance(native_kernel(rule, settings=settings), Refusal)
        assert "the compiled portable kernel is wrong by" in caplog.text

    def test_a_damaged_file_in_the_cache_is_compiled_anew(self, remembering: str, tmp_path: Path) -> None:
        settings = BuildSettings(tmp_path / "sound", compiler=remembering)
        sound = built_here(Sizes(hidden=20, layers=2, inputs=2), PORTABLE, settings)
        damaged = tmp_path / sound.relative_to(settings.cache)
        damaged.parent.mkdir()
        damaged.write_bytes(sound.read_bytes()[:100])
        damaged_settings = BuildSettings(tmp_path, "portable", compiler=remembering)
        assert not isinstance(native_kernel(make_rule(), settings=damaged_settings), Refusal)
        assert damaged.stat().st_size == sound.stat().st_size

    def test_of_many_who_want_a_kernel_at_once_one_compiles_it(self, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        slow = script(tmp_path / "cc", f'[ "$1" = --version ] || {{ echo >>{runs}; sleep 0.3; }}')
        settings, sizes = BuildSettings(tmp_path / "cache", compiler=slow), Sizes(hidden=4, layers=1, inputs=1)
        with ThreadPoolExecutor(4) as pool:
            made = set(pool.map(lambda _: built_here(sizes, PORTABLE, settings), range(4)))
        assert [len(made), runs.read_text().count("\n")] == [1, 1]
        assert [path.name for path in made.pop().parent.iterdir()] == [file_name(sizes, PORTABLE)]
        built_here(sizes, PORTABLE, settings, anew=True)
        assert runs.read_text().count("\n") == 2

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "file").write_text("")
        settings = BuildSettings(tmp_path / "file" / "cache", compiler=COMPILER)
        assert isinstance(native_kernel(make_rule(), settings=settings), Refusal)
        assert "cannot be written (Not a directory); set GRADSMITH_CACHE_DIR" in caplog.text

    @pytest.mark.long
    def test_two_processes_compile_beforehand_at_once_and_no_compiler_is_needed_then(
        self,
        tmp_path: Path,
        remembering: str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder = tmp_path / "kernels"
        command = [sys.executable, "-m", "gradsmith.rules.kernels.native", str(folder)]
        builders = [
            subprocess.Popen(
                [*command, "--rule", "1x4:raw", "--instructions", "portable"],
                env={**os.environ, "CXX": remembering},
                stderr=subprocess.PIPE,
            )
            for _ in range(2)
        ]
        said = [builder.communicate()[1] for builder in builders]
        assert [builder.returncode for builder in builders] == [0, 0], said
        assert [path.name for path in folder.iterdir()] == [file_name(Sizes(hidden=4, layers=1, inputs=1), PORTABLE)]
        settings = BuildSettings(tmp_path / "cache", "portable", prebuilt=folder, compiler="no-such-compiler")
        kernel = native_kernel(build({"kind": "lstm", **SMALL}), settings=settings)
        assert not isinstance(kernel, Refusal)
        assert not caplog.records
        assert folder.stat().st_mode & 0o055 == 0o055, "workers run as another user than the builder of an image"
        monkeypatch.setenv("GRADSMITH_NATIVE", "portable")
        asked = [str(folder), "--rule", "1x4:raw", "--instructions", "portable", "--check"]
        assert prebuilding(asked) == 0
        assert capsys.readouterr().out == "ok    lstm-1x4-in1 portable: runs, and computes what the rule says\n"
        assert prebuilding([str(folder), "--check"]) == 1, "the usual rules are not there"
        caplog.clear()
        # Another rule than those that are there, and no compiler: the log says what is missing and what there is.
        assert isinstance(native_kernel(make_rule(), settings=settings), Refusal)
        [record] = caplog.records
        assert f"the folder {folder} that GRADSMITH_KERNELS names has no lstm-2x20-in2-portable-" in record.message
        assert "it has lstm-1x4-in1-portable-" in record.message
        assert "cannot be compiled here: the C++ compiler 'no-such-compiler'" in record.message

    @pytest.mark.parametrize("fault", ["other sources", "no folder", "no file of a kernel"])
    def test_kernels_compiled_beforehand_that_cannot_be_used_are_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
    ) -> None:
        folder = tmp_path / "kernels"
        sizes, rule = Sizes(hidden=4, layers=1, inputs=1), build({"kind": "lstm", **SMALL})
        said = {
            "other sources": "lstm-1x4-in1-portable-0123456789abcdef.so is of another version or kind of machine",
            "no folder": "cannot be read (No such file or directory)",
            "no file of a kernel": "does not load",
        }
        if fault != "no folder":
            folder.mkdir()
            other = "lstm-1x4-in1-portable-0123456789abcdef.so"
            (folder / (other if fault == "other sources" else file_name(sizes, PORTABLE))).write_bytes(b"")
        settings = BuildSettings(tmp_path / "cache", "portable", prebuilt=folder, compiler="no-such-compiler")
        assert isinstance(native_kernel(rule, settings=settings), Refusal)
        [record] = caplog.records
        assert str(folder) in record.message
        assert said[fault] in record.message
        assert "no-such-compiler" in record.message

    def test_every_instruction_set_is_compiled_and_checked_whatever_this_cpu_has(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        # It knows every option and writes nothing into the file, which then does not load.
        monkeypatch.setenv("CXX", script(tmp_path / "c++", 'echo "c++ 1.0"'))
        monkeypatch.setenv("GRADSMITH_KERNELS", str(tmp_path / "kernels"))
        monkeypatch.setenv("GRADSMITH_NATIVE", "portable")  # of the machine that builds
        assert prebuilding([]) == 0
        made = {Path(line).name.rpartition("-")[0] for line in capsys.readouterr().out.splitlines()}
        names = {f"{sizes}-{target.name}" for sizes in USUAL for target in TARGETS}
        assert made == names
        assert len(names) == 3 * len(USUAL)
        assert prebuilding(["--check"]) == 1
        *kernels, others = capsys.readouterr().out.splitlines()
        assert {line.split(":")[0] for line in kernels} == {
            f"fail  {sizes} {target.name}" for sizes in USUAL for target in TARGETS
        }
        assert all("does not load" in line for line in kernels)
        assert others.startswith(f"ok    other sizes: {tmp_path}/c++ compiles them")

    def test_a_kernel_for_a_cpu_with_more_instructions_is_loaded_and_not_run(
        self, tmp_path: Path, remembering: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        best = next(target for target in TARGETS if target.compiles_on(platform.machine()))
        monkeypatch.setenv("CXX", remembering)
        asked = [str(tmp_path), "--rule", "1x4:raw", "--instructions", best.name]
        assert prebuilding(asked) == 0
        capsys.readouterr()
        assert prebuilding([*asked, "--check"]) == 0
        found = capsys.readouterr().out
        assert ("runs, and computes" in found) == (best in targets_here())
        assert ("loads; " in found) == (best not in targets_here())

    @pytest.mark.parametrize("fault", ["no compiler", "a compiler that fails", "a cache that cannot be written"])
    def test_a_machine_that_cannot_compile_other_sizes_is_told_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        (tmp_path / "file").write_text("")
        compiler = script(tmp_path / "c++", "exit 3" if fault == "a compiler that fails" else "exit 0")
        cache = tmp_path / ("file" if fault == "a cache that cannot be written" else "to come") / "kernels"
        if fault == "no compiler":
            monkeypatch.setenv("PATH", str(tmp_path / "to come"))
        found = check_compiler(BuildSettings(cache, compiler=None if fault == "no compiler" else compiler))
        said = {
            "no compiler": "there is no C++ compiler; install one",
            "a compiler that fails": "failed with status 3",
            "a cache that cannot be written": f"the folder {cache} for compiled kernels cannot be written",
        }
        assert not found.serves
        assert said[fault] in found.found
        sound = script(tmp_path / "sound", "exit 0")
        assert check_compiler(BuildSettings(tmp_path / "to come" / "kernels", compiler=sound)).serves

    @pytest.mark.parametrize(
        ("there", "level"),
        [
            (["lstm-2x20-in2-portable-0.so"], logging.INFO),  # a folder has the usual sizes, and this is another
            (["lstm-1x4-in1-portable-0.so"], logging.WARNING),
            (["lstm-1x4-in1-avx2-0.so"], logging.WARNING),
            ([], logging.WARNING),
        ],
    )
    def test_a_kernel_that_a_folder_should_have_is_missed_aloud(
        self, tmp_path: Path, remembering: str, caplog: pytest.LogCaptureFixture, there: list[str], level: int
    ) -> None:
        for name in there:
            (tmp_path / name).write_bytes(b"")
        settings = BuildSettings(tmp_path / "to come", "portable", prebuilt=tmp_path, compiler=remembering)
        with caplog.at_level(logging.INFO):
            assert not isinstance(native_kernel(build({"kind": "lstm", **SMALL}), settings=settings), Refusal)
        [record] = [record for record in caplog.records if "compiled here instead" in record.message]
        assert record.levelno == level

    def test_no_folder_to_fill_or_to_check(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("GRADSMITH_KERNELS", raising=False)
        assert (prebuilding([]), prebuilding(["--check"])) == (1, 1)
        assert "no folder is named: name FOLDER, or set GRADSMITH_KERNELS" in capsys.readouterr().err
