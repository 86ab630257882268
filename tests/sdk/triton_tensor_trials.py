"""What test_triton_tensors.py has computed by Triton; as tests/sdk/triton_trials.py, which says how and why."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradsmith.axes import Axis, Home, TorchAxis
from gradsmith.axes.triton import TritonAxis
from gradsmith.rules import HyperRule, MLPRule, build
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.tensor_truth import KernelRule, drawn

Array = npt.NDArray[Any]
PLANNED = 2
RATES = (1.0, 0.5, 2.0)


def make_rule(config: dict[str, Any]) -> KernelRule:
    """A rule in float32 whose weights are nowhere zero; of kind hyper, unless it is named."""
    rule = build({"kind": "hyper", **config})
    assert isinstance(rule, HyperRule | MLPRule)
    return drawn(rule, 3).float().requires_grad_(False)


def axes(rule: KernelRule, sizes: Sequence[int], *, device: str, **settings: Any) -> tuple[TritonAxis, TorchAxis]:
    """The same axis by Triton and by torch, in float32."""
    from gradsmith.rules.kernels.triton.tensor_kernel import TritonTensorKernel

    where = torch.device(device)
    home = Home(0, where, torch.float32)
    kernel = TritonTensorKernel(rule, where, **settings)
    return TritonAxis(home, sizes, rule, kernel, PLANNED), TorchAxis(
        home, torch.float32, sizes, rule.to(where), PLANNED
    )


def stepped(axis: Axis, parameters: Sequence[Tensor], G: Tensor, rests: Sequence[tuple[int, int]] = ()) -> None:
    """A step of the parameters for each row of gradients; rests: steps and the parameters that have none in them."""
    for step, row in enumerate(G):
        for parameter, piece in zip(parameters, torch.split(row, list(axis.sizes)), strict=True):
            parameter.grad = piece.view(parameter.shape).to(parameter.dtype).clone()
        moving = [None if (step, number) in rests else parameter for number, parameter in enumerate(parameters)]
        with torch.no_grad():
            axis.step(moving, [RATES[number % len(RATES)] for number in range(len(parameters))])


def compared(
    config: dict[str, Any],
    sizes: Sequence[int],
    G: Tensor,
    *,
    rests: Sequence[tuple[int, int]] = (),
    device: str = "cpu",
    **settings: Any,
) -> dict[str, list[list[Array]]]:
    """Each parameter, from zero, and its memory after these steps: by us, by torch, and in float64."""
    G, found = G.to(device), {}
    ours, plain = axes(make_rule(config), sizes, device=device, **settings)
    double = plain.home._replace(computes_in=torch.float64)
    precise = TorchAxis(double, torch.float64, sizes, make_rule(config).to(plain.home.device).double(), PLANNED)
    for name, axis in {"ours": ours, "torch's": plain, "float64's": precise}.items():
        kind = axis.home.computes_in
        parameters = [nn.Parameter(torch.zeros(size, dtype=kind, device=device)) for size in sizes]
        with np.errstate(all="ignore"):  # NumPy, which interprets, warns of what is not finite
            stepped(axis, parameters, G, rests)
        found[name] = [
            [each.cpu().numpy() for each in (parameter.detach(), *axis.read(number))]
            for number, parameter in enumerate(parameters)
        ]
    return found


def any_layout() -> dict[str, Array]:
    """Parameters that are not written in place, one that is there twice, and memory that torch began: ours, torch's."""
    sizes, found = (6, 12, 5, 5), {}
    G = torch.randn(3, sum(sizes), generator=torch.Generator().manual_seed(1))
    for name, axis in zip(("ours", "torch's"), axes(make_rule({}), sizes, device="cpu", block=16), strict=True):
        shared = nn.Parameter(torch.ones(5))
        parameters = [
            nn.Parameter(torch.ones(6, dtype=torch.bfloat16)),
            nn.Parameter(torch.ones(4, 3).t()),
            shared,
            nn.Parameter(shared.detach()),
        ]
        _, plain = axes(make_rule({}), sizes, device="cpu", block=16)
        stepped(plain, parameters, G[:1])
        for number in range(len(sizes)):
            axis.write(number, plain.read(number))
        stepped(axis, parameters, G[1:])
        found[name] = torch.cat([parameter.detach().float().reshape(-1) for parameter in parameters]).numpy()
    return found


def refused() -> dict[str, str]:
    """What is said to wrong arguments."""
    from gradsmith.rules.kernels.triton.tensor_kernel import TritonTensorKernel

    rule = make_rule({})
    kernel = TritonTensorKernel(rule, torch.device("cpu"))
    weights, places = kernel.weights(rule), kernel.places((5, 3))
    moving, state, numbers = torch.zeros(2, 3, dtype=torch.int64), kernel.state(places), torch.zeros(2, 6)
    attempts = {
        "state's shape": lambda: kernel.step(weights, places, moving, state[:, :8], numbers),
        "moving's dtype": lambda: kernel.step(weights, places, moving.float(), state, numbers),
        "numbers' strides": lambda: kernel.step(weights, places, moving, state, torch.zeros(6, 2).t()),
        "another rule": lambda: kernel.weights(make_rule({"output_scale": 1.0})),
        "a rule too large": lambda: TritonTensorKernel(make_rule({"hidden_size": 65}), torch.device("cpu")),
    }
    said = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except ValueError as error:
            said[name] = str(error)
    return said


def chosen(break_it: bool) -> list[str]:
    """The kernel that is handed out, and what is logged. break_it: parameters do not move."""
    from gradsmith.rules.kernels.triton import hyper, triton_tensor_kernel

    whole = hyper.move
    with _logged() as lines:
        try:
            if break_it:
                hyper.move = {(3,): lambda *arguments, **constants: None}  # noqa: ARG005
            for _ in range(2):
                kernel = triton_tensor_kernel(make_rule({"layers": 1}), torch.device("cpu"), choice="auto")
        finally:
            hyper.move = whole
    return ["none" if isinstance(kernel, Refusal) else type(kernel).__name__, *lines]


@contextmanager
def _logged() -> Iterator[list[str]]:
    from gradsmith.rules.kernels.triton import choose

    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    keep = Keep()
    choose.logger.addHandler(keep)
    choose._tried_for_tensors.cache_clear()
    try:
        yield lines
    finally:
        choose.logger.removeHandler(keep)
        choose._tried_for_tensors.cache_clear()


def compiled(config: dict[str, Any], name: str, capability: int) -> str:
    """PTX of one of the programs, for a card that need not be here and addresses that allow wide loads."""
    import triton
    from triton.backends.compiler import GPUTarget

    from gradsmith.rules.kernels.triton import hyper, mlp
    from gradsmith.rules.kernels.triton.launches import HyperLaunches
    from gradsmith.rules.kernels.triton.tensor_kernel import TritonTensorKernel

    launches = TritonTensorKernel(make_rule(config), torch.device("cpu")).launches
    if isinstance(launches, HyperLaunches):
        program, given = getattr(hyper, name), {"ALIGNED": True, **launches.network}
    else:
        program, given = getattr(mlp, name), {"ALIGNED": True, **launches.look, **launches.decide, **launches.move}
    names = program.arg_names
    constants = {argument: given[argument] for argument in names if argument in given}
    kinds = {"blocks": "*i32", "places": "*i64", "moving": "*i64", "stride": "i32"}
    kinds |= {"count_of_blocks": "i32", "scale": "fp32"}
    signature = {argument: "constexpr" if argument in constants else kinds.get(argument, "*fp32") for argument in names}
    # What a launch finds out: tensors of torch, and the state's stride, are multiples of 16.
    wide = {argument for argument, kind in signature.items() if kind.startswith("*")} | {"stride"}
    attributes = {(place,): [["tt.divisibility", 16]] for place, argument in enumerate(names) if argument in wide}
    source = triton.compiler.ASTSource(program, signature, constants, attributes)
    return str(triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8}).asm["ptx"])
