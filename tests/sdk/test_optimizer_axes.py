"""The fused step against the plain rule, and everything that may happen to parameters between two steps."""

from __future__ import annotations

import copy
import io
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from gradsmith import LearnedOptimizer
from gradsmith.axes import Home, NativeAxis, Place, TorchAxis
from gradsmith.axes.native import Prepared, agrees_with_torch
from gradsmith.errors import StateMismatch, UnsupportedGradient, UnsupportedParameter
from gradsmith.rules import LSTMRule, Rule, State, build
from gradsmith.rules.kernels.native import TARGETS, BuildSettings, NativeKernel, Target
from gradsmith.rules.kernels.native.build import built_here
from gradsmith.rules.kernels.native.library import Library
from gradsmith.rules.kernels.native.targets import targets_here
from tests.compiler import COMPILER, UNOPTIMIZED, compiled

torch.set_num_threads(1)

BEST, PORTABLE = targets_here()[0], TARGETS[-1]
WIDE = Target("wide", 16, (*BEST.flags, "-O1"))  # AVX-512's lanes and tails, on the vectors of this CPU
INSTRUCTIONS = (*targets_here(), *(() if BEST.width == WIDE.width else (WIDE,)))
HERE = Home(0, torch.device("cpu"), torch.float32)
SIZES = (3, 0, 1, 31, 33, 1, 1, 1, 500, 0, 2, 64, 5, 100, 7)
STEPS = 6


def make_rule(seed: int = 0, **settings: object) -> LSTMRule:
    rule = build({"kind": "lstm", **settings})
    rule.initialise(torch.Generator().manual_seed(seed))
    assert isinstance(rule, LSTMRule)
    return rule.requires_grad_(False)


@pytest.fixture(scope="session")
def prepared() -> Callable[[LSTMRule, Target], Prepared]:
    settings = BuildSettings(BuildSettings.from_environment().cache, compiler=COMPILER)

    def made(rule: LSTMRule, target: Target) -> Prepared:
        sizes = rule.settings.costs().sizes
        assert sizes is not None
        kernel = NativeKernel(rule, Library(built_here(sizes, target, settings), sizes), target)
        return Prepared(kernel, kernel.weights(rule))

    return made


@pytest.fixture(params=["native", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test that uses it runs on the compiled kernel and through torch."""
    name: str = request.param
    if name == "native" and COMPILER is None:
        pytest.skip("there is no C++ compiler here")
    if name != "native":
        monkeypatch.setenv("GRADSMITH_NATIVE", "off")
    return name


def some_gradients(sizes: tuple[int, ...] = SIZES, steps: int = STEPS) -> list[list[Tensor]]:
    """For each step, a gradient for each tensor: many orders of magnitude, some of them zero."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(steps):
        size = torch.exp(3 * torch.randn(sum(sizes), generator=generator))
        row = size * torch.randn(sum(sizes), generator=generator) * (torch.rand(sum(sizes), generator=generator) > 0.1)
        found.append([piece.clone() for piece in row.split(list(sizes))])
    return found


def run(
    axis: NativeAxis | TorchAxis, gradients: list[list[Tensor]], resting: Callable[[int, int], bool] | None = None
) -> list[Tensor]:
    """The parameters after the steps, and their memory."""
    parameters = [torch.ones(size) for size in axis.sizes]
    for step, row in enumerate(gradients):
        for parameter, gradient in zip(parameters, row, strict=True):
            parameter.grad = gradient
        rests = [resting is not None and resting(step, number) for number in range(len(parameters))]
        axis.step(
            [None if rest else parameter for rest, parameter in zip(rests, parameters, strict=True)],
            [1.0] * len(parameters),
        )
    memory = [tensor for number in range(len(parameters)) for tensor in axis.read(number)]
    return [parameter.detach() for parameter in parameters] + memory


def assert_close(found: list[Tensor], expected: list[Tensor], allowed: float) -> None:
    """Differences of at most `allowed` of the largest number of all."""
    largest = max(tensor.abs().max().item() for tensor in expected if tensor.numel())
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), two.float(), rtol=0, atol=allowed * largest)


@compiled
@pytest.mark.parametrize("target", INSTRUCTIONS, ids=lambda target: target.name)
class TestTheFusedStep:
    """Against the plain rule through torch, for every width of vectors."""

    def test_many_tensors_of_odd_sizes(self, prepared: Any, target: Target) -> None:
        rule, gradients = make_rule(), some_gradients()
        fused = run(NativeAxis(HERE, torch.float32, SIZES, prepared(rule, target), 1), gradients)
        assert_close(fused, run(TorchAxis(HERE, torch.float32, SIZES, rule), gradients), 1e-5)

    def test_tensors_rest_in_any_pattern(self, prepared: Any, target: Target) -> None:
        rule, gradients = make_rule(), some_gradients()

        def resting(step: int, number: int) -> bool:
            return (step * 7 + number * number) % 3 == 0

        fused = run(NativeAxis(HERE, torch.float32, SIZES, prepared(rule, target), 1), gradients, resting)
        assert_close(fused, run(TorchAxis(HERE, torch.float32, SIZES, rule), gradients, resting), 1e-5)

    def test_memory_in_bfloat16_is_that_in_float32_rounded_to_the_nearest(self, prepared: Any, target: Target) -> None:
        rule, gradients = make_rule(), some_gradients(steps=2)
        half = NativeAxis(HERE, torch.bfloat16, SIZES, prepared(rule, target), 1)
        full = NativeAxis(HERE, torch.float32, SIZES, prepared(rule, target), 1)
        run(half, gradients[:1])
        for number in range(len(SIZES)):
            full.write(number, half.read(number))
        expected = run(full, gradients[1:])
        for one, two in zip(run(half, gradients[1:]), expected, strict=True):
            assert torch.equal(one, two.to(one.dtype))

    def test_what_is_not_finite_stays_so_and_harms_no_neighbour(self, prepared: Any, target: Target) -> None:
        rule, gradients = make_rule(), some_gradients()
        gradients[1][8][40], gradients[2][3][0], gradients[2][0][1] = float("nan"), float("inf"), float("-inf")
        gradients[1][8][41:42].view(torch.int32)[0] = 0x7FFFFFFF  # a NaN that rounding up would make a zero
        for stored_in, allowed in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            fused = run(NativeAxis(HERE, stored_in, SIZES, prepared(rule, target), 1), gradients)
            plain = run(TorchAxis(HERE, stored_in, SIZES, rule), gradients)
            assert sum(int(tensor.isnan().sum()) for tensor in plain) >= 81
            for one, two in zip(fused, plain, strict=True):
                torch.testing.assert_close(one, two, rtol=allowed, atol=allowed, equal_nan=True)

    def test_memory_is_read_and_written_in_every_bit(self, prepared: Any, target: Target) -> None:
        rule = make_rule()
        for sizes in (SIZES, (70_000, 3, 70_000)):  # more than the blocks that are repacked at once
            axis = NativeAxis(HERE, torch.float32, sizes, prepared(rule, target), 1)
            memories = [tuple(torch.randn(size, 20) for _ in range(4)) for size in sizes]
            for number in (*range(0, len(sizes), 2), *range(1, len(sizes), 2)):
                axis.write(number, memories[number])
            for number, memory in enumerate(memories):
                assert all(map(torch.equal, axis.read(number), memory))

    def test_the_trial_accepts_it(self, prepared: Any, target: Target) -> None:
        assert agrees_with_torch(prepared(make_rule(), target), make_rule())


@compiled
class TestBits:
    def test_any_number_of_threads_gives_the_same(self, prepared: Any) -> None:
        rule, sizes = make_rule(), (5000, 1, 1, 37, 9000)
        for stored_in in (torch.float32, torch.bfloat16):
            gradients = some_gradients(sizes, 2)
            one, *others = (
                run(NativeAxis(HERE, stored_in, sizes, prepared(rule, BEST), threads), gradients)
                for threads in (1, 2, 3, 16)
            )
            assert all(all(map(torch.equal, one, other)) for other in others)

    def test_a_tensor_moves_among_others_as_it_does_alone(self, prepared: Any) -> None:
        rule, gradients = make_rule(), some_gradients()
        together = run(NativeAxis(HERE, torch.float32, SIZES, prepared(rule, BEST), 1), gradients)
        for number, size in enumerate(SIZES):
            alone = NativeAxis(HERE, torch.float32, (size,), prepared(rule, BEST), 1)
            assert torch.equal(run(alone, [[row[number]] for row in gradients])[0], together[number])

    def test_the_trial_refuses_a_kernel_that_is_wrong(self, prepared: Any) -> None:
        assert not agrees_with_torch(prepared(make_rule(seed=1), BEST), make_rule(seed=2))


def steps(optimizer: LearnedOptimizer, parameters: list[Tensor], number: int = 3, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()


def as_one(parameters: list[Tensor]) -> Tensor:
    return torch.cat([parameter.detach().double().reshape(-1) for parameter in parameters])


class TestParameters:
    """What is not float32 in a row takes another way and ends in the same place."""

    KINDS: ClassVar[dict[str, Callable[[], Tensor]]] = {
        "plain": lambda: torch.ones(4, 9),
        "transposed": lambda: torch.ones(9, 4).t(),
        "every second": lambda: torch.ones(4, 18)[:, ::2],
        "channels last": lambda: torch.ones(2, 3, 2, 3).to(memory_format=torch.channels_last),
        "in the middle of another": lambda: torch.ones(50)[3:39],
    }

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
    def test_layouts_and_precisions(self, backend: str, kind: str, dtype: torch.dtype) -> None:
        del backend
        rule = make_rule()
        odd = self.KINDS[kind]().to(dtype).requires_grad_()
        plain = torch.ones(odd.shape, requires_grad=True)
        steps(LearnedOptimizer([odd, torch.zeros(3, requires_grad=True)], rule), [odd])
        steps(LearnedOptimizer([plain], rule), [plain])
        torch.testing.assert_close(odd.double(), plain.double(), rtol=0, atol=3e-2 if odd.element_size() == 2 else 3e-6)

    def test_gradients_that_do_not_stand_in_a_row(self, backend: str) -> None:
        del backend
        rule, one, two = make_rule(), torch.ones(4, 9, requires_grad=True), torch.ones(4, 9, requires_grad=True)
        gradient = torch.randn(9, 4)
        one.grad, two.grad = gradient.t(), gradient.t().contiguous()
        for parameter in (one, two):
            LearnedOptimizer([parameter], rule).step()
        assert torch.equal(one, two)

    def test_a_gradient_that_is_a_negated_view(self, backend: str) -> None:
        del backend
        lazy, plain = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        lazy.grad, plain.grad = torch.tensor([1 + 2j]).conj().imag, torch.tensor([-2.0])
        assert lazy.grad.is_neg()
        for parameter in (lazy, plain):
            LearnedOptimizer([parameter], make_rule()).step()
        assert torch.equal(lazy, plain)

    def test_two_parameters_with_the_same_numbers_add_up(self, backend: str) -> None:
        """They would be written by two threads at once."""
        del backend
        rule, numbers = make_rule(), torch.zeros(6000)
        twins = [nn.Parameter(numbers), nn.Parameter(numbers)]
        alone = nn.Parameter(torch.zeros(6000))
        steps(LearnedOptimizer(twins, rule, threads=2), twins, 1)
        for number in range(2):
            alone.grad = twins[number].grad
            LearnedOptimizer([alone], rule).step()
        torch.testing.assert_close(numbers, alone.detach(), rtol=0, atol=1e-7)

    def test_data_replaced_between_steps(self, backend: str) -> None:
        del backend
        rule = make_rule()
        straight, replaced = nn.Parameter(torch.ones(100)), nn.Parameter(torch.ones(100))
        steps(LearnedOptimizer([straight], rule), [straight])
        optimizer = LearnedOptimizer([replaced], rule)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            before = replaced.data
            kept = before.clone()
            replaced.data = before.clone()
            replaced.grad = torch.randn(100, generator=generator)
            optimizer.step()
            assert torch.equal(before, kept), "what is no longer the parameter's is not written"
        assert torch.equal(straight, replaced)

    def test_a_precision_changed_between_steps_takes_the_memory_along(self, backend: str) -> None:
        del backend
        rule = make_rule()
        straight, changed, fresh = (nn.Parameter(torch.ones(40)) for _ in range(3))
        optimizers = [LearnedOptimizer([parameter], rule) for parameter in (straight, changed, fresh)]
        for optimizer, parameter in zip(optimizers[:2], (straight, changed), strict=True):
            steps(optimizer, [parameter], 2)
        changed.data, fresh.data = changed.data.double(), straight.data.clone()
        assert optimizers[1].state[changed]["memory"][0].dtype == torch.float32
        for optimizer, parameter in zip(optimizers, (straight, changed, fresh), strict=True):
            parameter.grad = torch.full_like(parameter, 0.5)
            optimizer.step()
        assert optimizers[1].state[changed]["memory"][0].dtype == torch.float64
        torch.testing.assert_close(straight.double(), changed, rtol=0, atol=1e-6)
        assert (fresh - straight).abs().max() > 1e-4, "without memory it would move otherwise"

    def test_another_size_is_refused(self, backend: str) -> None:
        del backend
        parameter = nn.Parameter(torch.ones(8))
        optimizer = LearnedOptimizer([parameter], make_rule())
        steps(optimizer, [parameter], 1)
        parameter.data = torch.ones(5)
        with pytest.raises(UnsupportedGradient, match=r"shape \(5,\) has a gradient of shape \(8,\)"):
            optimizer.step()
        parameter.grad = None
        with pytest.raises(StateMismatch, match=r"shape \(5,\) has memory for 8 coordinates.*begins anew"):
            steps(optimizer, [parameter], 1)
        del optimizer.state[parameter]
        steps(optimizer, [parameter], 1)

    def test_tensors_whose_numbers_are_elsewhere_are_refused(self, backend: str) -> None:
        del backend
        wrapped = TwoTensor(torch.ones(3), torch.ones(3)).requires_grad_()
        with pytest.raises(UnsupportedParameter, match="is a TwoTensor of dtype float32"):
            LearnedOptimizer([wrapped], make_rule())
        parameter = nn.Parameter(torch.ones(3))
        parameter.grad = TwoTensor(torch.ones(3), torch.ones(3))
        with pytest.raises(UnsupportedGradient, match="type TwoTensor"):
            LearnedOptimizer([parameter], make_rule()).step()

    def test_subclasses_that_hold_their_numbers_are_trained(self, backend: str) -> None:
        del backend

        class Named(nn.Parameter):
            name = "mine"

        plain, named = nn.Parameter(torch.ones(30)), Named(torch.ones(30))
        for parameter in (plain, named):
            steps(LearnedOptimizer([parameter], make_rule()), [parameter])
        torch.testing.assert_close(plain.detach(), named.detach().as_subclass(Tensor), rtol=0, atol=1e-6)

    def test_autograd_notices_that_parameters_have_moved(self, backend: str) -> None:
        del backend
        parameter = nn.Parameter(torch.ones(3))
        loss = (parameter * torch.ones(3, requires_grad=True)).sum()
        steps(LearnedOptimizer([parameter], make_rule()), [parameter], 1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_groups_come_empty_and_late_and_small(self, backend: str) -> None:
        del backend
        rule = make_rule()
        many = [nn.Parameter(torch.ones(size)) for size in (1, 0, 2, 3, 40, 1)]
        twins = copy.deepcopy(many)
        steps(LearnedOptimizer(many, rule), many, 2)
        optimizer = LearnedOptimizer([{"params": []}, {"params": twins[:2]}, {"params": twins[2:4]}], rule)
        optimizer.add_param_group({"params": twins[4:]})
        steps(optimizer, twins, 2)
        torch.testing.assert_close(as_one(many), as_one(twins), rtol=0, atol=1e-6)
        later = nn.Parameter(torch.ones(7))
        optimizer.add_param_group({"params": [later]})
        steps(optimizer, [*twins, later], 1)
        assert len({optimizer.state[parameter]["memory"].axis for parameter in (*twins, later)}) == 2
        assert not torch.equal(later, torch.ones(7))


class TestState:
    def test_memory_can_be_dropped_replaced_and_exchanged(self, backend: str) -> None:
        del backend
        rule = make_rule()
        one, two = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
        optimizer = LearnedOptimizer([one, two], rule)
        steps(optimizer, [one, two])
        optimizer.state[two]["memory"] = optimizer.state[one]["memory"]  # not a copy: each goes its own way from here
        expected = tuple(tensor.clone() for tensor in optimizer.state[one]["memory"])
        one.grad, two.grad = torch.ones(5), -torch.ones(5)
        optimizer.step()
        with torch.no_grad():
            for parameter in (one, two):
                _, after = rule(parameter.grad, expected)
                for found, truth in zip(optimizer.state[parameter]["memory"], after, strict=True):
                    torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)
        optimizer.state.clear()
        fresh = nn.Parameter(one.detach().clone())
        steps(optimizer, [one], 1)
        steps(LearnedOptimizer([fresh], rule), [fresh], 1)
        assert torch.equal(one, fresh)

    def test_it_is_the_rule_s_own_tuple_to_all_who_look(self, backend: str) -> None:
        del backend
        parameter = nn.Parameter(torch.ones(5, 3))
        optimizer = LearnedOptimizer([parameter], make_rule())
        steps(optimizer, [parameter])
        place = optimizer.state[parameter]["memory"]
        assert isinstance(place, Place)
        assert [tuple(tensor.shape) for tensor in place] == [(15, 20)] * 4
        assert (len(place), len(place[1:])) == (4, 3)
        saved = optimizer.state_dict()["state"][0]["memory"]
        for kept in (copy.deepcopy(place), pickle.loads(pickle.dumps(place)), saved):
            assert type(kept) is tuple
            assert all(map(torch.equal, kept, place))

    @pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(("saver", "loader"), [("auto", "off"), ("off", "auto"), ("auto", "portable")])
    def test_a_state_dict_goes_from_any_kernel_to_any_other(
        self, monkeypatch: pytest.MonkeyPatch, saver: str, loader: str, state_dtype: torch.dtype
    ) -> None:
        rule = make_rule()
        here = [nn.Parameter(torch.ones(size)) for size in SIZES]
        there = copy.deepcopy(here)
        monkeypatch.setenv("GRADSMITH_NATIVE", saver)
        optimizer = LearnedOptimizer(here, rule, state_dtype=state_dtype)
        steps(optimizer, here)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        monkeypatch.setenv("GRADSMITH_NATIVE", loader)
        other = LearnedOptimizer(there, rule, state_dtype=state_dtype)
        other.load_state_dict(torch.load(file, weights_only=True))
        before = optimizer.state_dict()["state"]
        for parameter in there:
            parameter.grad = None
        there[0].grad = torch.ones(3)
        other.step()  # the memory is laid on an axis of its own; that of the others is as it was
        for number in range(1, len(SIZES)):
            for one, two in zip(before[number]["memory"], other.state_dict()["state"][number]["memory"], strict=True):
                assert one.dtype == two.dtype == state_dtype
                assert torch.equal(one, two)

    def test_a_state_dict_of_the_first_version_loads(self, backend: str) -> None:
        """It held views of one axis for all parameters of a group."""
        del backend
        rule, parameters = make_rule(), [nn.Parameter(torch.ones(size)) for size in (3, 30)]
        flat = tuple(torch.randn(20, 33).t() for _ in range(4))
        memories = list(zip(*(tensor.split([3, 30]) for tensor in flat), strict=True))
        optimizer = LearnedOptimizer(parameters, rule)
        saved = optimizer.state_dict()
        saved["state"] = {number: {"memory": memory} for number, memory in enumerate(memories)}
        kept = copy.deepcopy(memories)
        optimizer.load_state_dict(saved)
        steps(optimizer, parameters, 1)
        assert all(all(map(torch.equal, one, two)) for one, two in zip(memories, kept, strict=True)), "only read"
        with torch.no_grad():
            for parameter, memory in zip(parameters, memories, strict=True):
                _, after = rule(parameter.grad, memory)
                for found, truth in zip(optimizer.state[parameter]["memory"], after, strict=True):
                    torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)

    def test_the_precision_of_memory_may_change_with_a_load(self, backend: str) -> None:
        del backend
        rule, parameter = make_rule(), nn.Parameter(torch.ones(50))
        half = LearnedOptimizer([parameter], rule, state_dtype=torch.bfloat16)
        steps(half, [parameter])
        full = LearnedOptimizer([parameter], rule)
        full.load_state_dict(half.state_dict())
        for one, two in zip(full.state[parameter]["memory"], half.state[parameter]["memory"], strict=True):
            assert (one.dtype, two.dtype) == (torch.float32, torch.bfloat16)
            assert torch.equal(one, two.float())
        steps(full, [parameter])
        half.load_state_dict(full.state_dict())
        for one, two in zip(full.state[parameter]["memory"], half.state[parameter]["memory"], strict=True):
            assert torch.equal(one.bfloat16(), two)

    def test_copies_and_pickles_go_on_alike(self, backend: str) -> None:
        del backend
        parameters: list[Tensor] = [nn.Parameter(torch.ones(size)) for size in (40, 3)]
        optimizer = LearnedOptimizer(parameters, make_rule(), state_dtype=torch.bfloat16, threads=2)
        steps(optimizer, parameters)
        twins = [copy.deepcopy((parameters, optimizer)), pickle.loads(pickle.dumps((parameters, optimizer)))]
        steps(optimizer, parameters, seed=1)
        for theirs, twin in twins:
            steps(twin, theirs, seed=1)
            assert torch.equal(as_one(theirs), as_one(parameters))
            assert twin.state[theirs[0]]["memory"][0].dtype == torch.bfloat16

    def test_the_loss_hardly_notices_memory_in_bfloat16(self, backend: str) -> None:
        """500 coordinates of a quadratic, 60 steps: within 1 % of the starting loss, while that falls by half."""
        del backend
        curves = []
        for state_dtype in (torch.float32, torch.bfloat16):
            theta = nn.Parameter(torch.linspace(-1, 1, 500))
            optimizer = LearnedOptimizer([theta], downhill(), state_dtype=state_dtype)
            losses = []
            for _ in range(60):
                optimizer.zero_grad()
                loss = (theta**2).mean()
                loss.backward()
                losses.append(loss.item())
                optimizer.step()
            curves.append(torch.tensor(losses))
        assert curves[0][-1] < 0.5 * curves[0][0]
        assert not torch.equal(*curves)
        torch.testing.assert_close(curves[1], curves[0], rtol=0, atol=0.01 * curves[0][0].item())


def downhill() -> LSTMRule:
    """A rule that remembers the direction and goes against it, so that the loss falls."""
    rule = make_rule(forget_bias=0.0)
    with torch.no_grad():
        layer = rule.layers[0]
        layer.weight.mul_(0.1)
        layer.weight[40:60, 1] = 1.0  # the candidate is the gradient's sign
        rule.layers[1].weight.mul_(0.1)
        rule.layers[1].weight[40:60, :20] = 0.2
        rule.readout_weight.fill_(-0.05)
        rule.readout_bias.zero_()
    return rule


@final
class MeanRule(Rule):
    """Steps against the mean gradient of all coordinates, and counts the steps: coordinates see one another."""

    kind: ClassVar[str] = "mean"
    coordinatewise = False

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,  # noqa: ARG002
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        return (torch.zeros(coordinates, 1, dtype=dtype, device=device),)

    def forward(self, gradient: Tensor, state: State, segments: Tensor | None = None) -> tuple[Tensor, State]:  # noqa: ARG002
        return -gradient.mean().expand_as(gradient), (state[0] + 1,)

    def config(self) -> dict[str, object]:
        return {"kind": self.kind}

    def initialise(self, generator: torch.Generator) -> None:
        pass


class TestRulesWhoseCoordinatesSeeOneAnother:
    def test_a_group_is_seen_whole_and_alone(self) -> None:
        a, b, c, late = (nn.Parameter(torch.zeros(size)) for size in (1, 3, 2, 4))
        optimizer = LearnedOptimizer([{"params": [a, b]}, {"params": [c]}], MeanRule())
        for parameter, value in ((a, 4.0), (b, 1e-30), (c, 7.0)):  # a gradient of zero would rest
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
        assert [parameter[0].item() for parameter in (a, b, c)] == [-1.0, -1.0, -7.0]
        optimizer.param_groups[0]["params"].append(late)
        late.grad, b.grad = torch.ones(4), None
        optimizer.step()  # the mean over a and late: 8 / 5
        assert late[0].item() == pytest.approx(-1.6)
        assert a[0].item() == pytest.approx(-2.6)
        assert b[0].item() == -1.0
        b.grad = torch.zeros(3)
        optimizer.step()
        counted = [optimizer.state[parameter]["memory"][0][0].item() for parameter in (a, b, c, late)]
        assert counted == [3, 2, 3, 2]


class TestTheMachine:
    def test_chunks_do_not_show(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rule, gradients = make_rule(), some_gradients()
        whole = run(TorchAxis(HERE, torch.float32, SIZES, rule), gradients)
        monkeypatch.setattr("gradsmith.axes.plain_torch.CHUNK", {"cpu": 50})
        assert_close(run(TorchAxis(HERE, torch.float32, SIZES, rule), gradients), whole, 1e-6)

    @pytest.mark.long
    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
    @pytest.mark.parametrize("choice", ["auto", pytest.param("off", marks=pytest.mark.slow)])
    def test_a_step_takes_little_more_than_its_memory(self, choice: str) -> None:
        """Before, it took 1.2 KB for each coordinate, three times the memory itself."""
        program = (
            "import torch; from gradsmith import LearnedOptimizer; from gradsmith.rules import build\n"
            "torch.set_num_threads(1)\n"
            "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024\n"
            "def steps(size):\n"
            "    parameters = [torch.zeros(size // 4, requires_grad=True) for _ in range(4)]\n"
            "    for parameter in parameters: parameter.grad = torch.ones(size // 4)\n"
            "    optimizer = LearnedOptimizer(parameters, build({'kind': 'lstm'}))\n"
            "    optimizer.step(); optimizer.step()\n"
            "    return optimizer, parameters\n"
            "small = steps(20_000); before = peak(); kept = steps(200_000); print((peak() - before) / 200_000)"
        )
        environment = {**os.environ, "GRADSMITH_NATIVE": choice}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=110
        )
        assert 200 < float(done.stdout) < 400  # 320 of memory and 8 of parameter and gradient

    @pytest.mark.long
    @compiled
    def test_compiling_is_told_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "gradsmith")
        monkeypatch.setenv("GRADSMITH_CACHE_DIR", str(tmp_path))
        quick = tmp_path / "c++"
        quick.write_text(UNOPTIMIZED)
        quick.chmod(0o755)
        monkeypatch.setenv("CXX", str(quick))
        for _ in range(2):
            parameter = nn.Parameter(torch.ones(3))
            steps(LearnedOptimizer([parameter], make_rule(hidden_size=3, layers=1)), [parameter], 1)
        [record] = caplog.records
        assert "Compiling the" in record.message
        assert "lstm-1x3-in2" in record.message

    def test_without_a_compiler_torch_does_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("GRADSMITH_CACHE_DIR", str(tmp_path))
        monkeypatch.setenv("CXX", "no-such-compiler")
        parameter = nn.Parameter(torch.ones(3))
        optimizer = LearnedOptimizer([parameter], make_rule(hidden_size=3, layers=1))
        steps(optimizer, [parameter], 1)
        assert isinstance(optimizer.state[parameter]["memory"].axis, TorchAxis)
        assert "no-such-compiler" in caplog.text

    @pytest.mark.parametrize("settings", [{"state_dtype": torch.float16}, {"state_dtype": torch.int8}, {"threads": 0}])
    def test_settings_it_cannot_use_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"{next(iter(settings))} must be .* not {next(iter(settings.values()))}"):
            LearnedOptimizer([nn.Parameter(torch.ones(3))], make_rule(), **settings)
