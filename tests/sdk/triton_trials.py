"""What test_triton.py has computed by Triton, in the interpreter (in a process of its own) or on a CUDA device.

Triton decides at its import whether it interprets; so this module imports it, and what imports it, inside functions.
Results are numbers and NumPy arrays, which travel between processes.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from gradsmith.rules import LSTMRule, State, build
from gradsmith.rules.kernels.base import Refusal

Array = npt.NDArray[Any]
CPU = "cpu"


def interpret() -> None:
    """To be called first in a process: everything of Triton is interpreted there, and warnings are errors."""
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    _interpret_faster()


def _interpret_faster() -> None:
    """The interpreter patches Triton's language anew whenever one function of a program calls another, which is half of
    its time. In a process that does nothing else, once for each module is enough."""
    import triton.language as tl
    from triton.runtime import interpreter

    if not hasattr(interpreter, "_patch_lang") or not hasattr(interpreter, "_LangPatchScope"):
        return  # another version: slower
    patch, patched = interpreter._patch_lang, set()

    def once(function: Any) -> Any:
        visible = list(map(id, function.__globals__.values()))
        languages = (id(tl) in visible, id(tl.core) in visible)
        if languages not in patched:
            patched.add(languages)
            patch(function)
        return interpreter._LangPatchScope()  # nothing to be undone

    interpreter._patch_lang = once


def make_rule(config: dict[str, Any], seed: int = 0) -> LSTMRule:
    rule = build({"kind": "lstm", **config})
    rule.initialise(torch.Generator().manual_seed(seed))
    assert isinstance(rule, LSTMRule)
    return rule


def problem(config: dict[str, Any], coordinates: int, steps: int) -> tuple[LSTMRule, State, Tensor, Tensor]:
    """A rule, a state in mid-flight, gradients over many orders of magnitude, and weights of the updates."""
    rule = make_rule(config)
    generator = torch.Generator().manual_seed(coordinates + 1000 * steps)
    state = tuple(0.3 * torch.randn(m.shape, generator=generator) for m in rule.initial_state(coordinates))
    G = torch.randn(steps, coordinates, generator=generator)
    G *= torch.exp(4 * torch.randn(steps, coordinates, generator=generator))
    odd = torch.tensor([0.0, -0.0, 1e-40, -1e-38, 4.539993e-05, -4.5399e-05, 1e30, -1e30, 1e-12])
    G.view(-1)[1::5] = odd[torch.arange(len(G.view(-1)[1::5])) % len(odd)]
    return rule, state, G, torch.randn(steps, coordinates, generator=generator)


def in_double(rule: LSTMRule, state: State, G: Tensor, D: Tensor) -> tuple[Tensor, State, Tensor]:
    """The truth: the sum of the updates, the last state and the gradient of sum_t <D[t], update_t>, by autograd."""
    truth = build(rule.config()).double()
    truth.load_state_dict({name: value.double() for name, value in rule.state_dict().items()})
    memory = tuple(tensor.double() for tensor in state)
    moved, loss = torch.zeros(G.shape[1], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for gradient, weight in zip(G.double(), D.double(), strict=True):
        update, memory = truth(gradient, memory)
        moved, loss = moved + update, loss + update @ weight
    pieces = torch.autograd.grad(loss, list(truth.parameters()))
    flat = torch.cat([piece.reshape(-1) for piece in pieces])
    return moved.detach(), tuple(tensor.detach() for tensor in memory), flat


def share(found: Tensor, truth: Tensor) -> float:
    """The largest difference over the largest value; where the truth is zero, the largest difference."""
    largest = truth.abs().max().item()
    return (found.cpu().double() - truth).abs().max().item() / (largest or 1.0)


def errors(
    config: dict[str, Any], coordinates: int, steps: int, *, device: str = CPU, **settings: Any
) -> dict[str, float]:
    """Of theta, of the state, and of the gradient of each weight tensor, against float64."""
    from gradsmith.rules.kernels.triton.kernel import TritonKernel

    rule, state, G, D = problem(config, coordinates, steps)
    moved, after, gradient = in_double(rule, state, G, D)
    kernel = TritonKernel(rule, torch.device(device), **settings)
    weights, packed = kernel.weights(rule), kernel.pack(tuple(m.to(device) for m in state))
    snapshot = packed.clone()
    guard = torch.full((coordinates + 128,), 7.0, device=device)  # nothing beyond the coordinates is written
    theta = guard[64 : 64 + coordinates].zero_()
    for row in G.to(device):
        kernel.step(weights, theta, row, packed)
    # Rows that lie apart, as the trainer's do.
    apart = torch.full((2, steps, coordinates + 3), float("nan"), device=device)
    apart[0, :, :coordinates], apart[1, :, :coordinates] = G, D
    found = kernel.window_gradient(weights, snapshot, apart[0, :, :coordinates], apart[1, :, :coordinates])
    sizes = [parameter.numel() for parameter in rule.parameters()]
    result = {
        name: share(ours, truth)
        for (name, _), ours, truth in zip(
            rule.named_parameters(), torch.split(found, sizes), torch.split(gradient, sizes), strict=True
        )
    }
    result["theta"] = share(theta, moved)
    result["state"] = max(map(share, kernel.unpack(packed, coordinates), after))
    result["guard"] = float((guard != 7.0).sum().item() - coordinates)
    return result


def special(config: dict[str, Any], value: float, coordinates: int = 33, steps: int = 1) -> dict[str, Array]:
    """Gradients that are all `value`, from an empty state: ours beside the rule's own, in float32."""
    from gradsmith.rules.kernels.triton.kernel import TritonKernel

    rule = make_rule(config)
    kernel = TritonKernel(rule, torch.device(CPU))
    G = torch.full((steps, coordinates), value)
    D = torch.ones(steps, coordinates)
    weights, packed, theta = kernel.weights(rule), kernel.initial_state(coordinates), torch.zeros(coordinates)
    for row in G:
        kernel.step(weights, theta, row, packed)
    found = kernel.window_gradient(weights, kernel.initial_state(coordinates), G, D)
    state, moved, loss = rule.initial_state(coordinates), torch.zeros(coordinates), torch.zeros(())
    for row, weight in zip(G, D, strict=True):
        update, state = rule(row, state)
        moved, loss = moved + update, loss + update @ weight
    truth = torch.cat([piece.reshape(-1) for piece in torch.autograd.grad(loss, list(rule.parameters()))])
    pairs = {"theta": theta, "theta of the rule": moved.detach(), "gradient": found, "gradient of the rule": truth}
    return {name: tensor.numpy() for name, tensor in pairs.items()}


def one_nan(config: dict[str, Any], coordinates: int = 33) -> dict[str, Array]:
    """A NaN among gradients: theta after a step, and the weights' gradient, ours and the rule's own."""
    from gradsmith.rules.kernels.triton.kernel import TritonKernel

    rule, state, G, D = problem(config, coordinates, 1)
    G[0, 5] = float("nan")
    kernel = TritonKernel(rule, torch.device(CPU))
    weights, packed, theta = kernel.weights(rule), kernel.pack(state), torch.zeros(coordinates)
    kernel.step(weights, theta, G[0], packed)
    found, truth = kernel.window_gradient(weights, kernel.pack(state), G, D), in_double(rule, state, G, D)[2]
    return {"theta": theta.numpy(), "gradient": found.numpy(), "gradient of the rule": truth.numpy()}


def twice(config: dict[str, Any], coordinates: int, steps: int, *, device: str = CPU, **settings: Any) -> list[Array]:
    """The weights' gradient of the same window, computed twice."""
    from gradsmith.rules.kernels.triton.kernel import TritonKernel

    rule, state, G, D = problem(config, coordinates, steps)
    kernel = TritonKernel(rule, torch.device(device), **settings)
    weights, packed = kernel.weights(rule), kernel.pack(tuple(m.to(device) for m in state))
    G, D = G.to(device), D.to(device)
    return [kernel.window_gradient(weights, packed, G, D).cpu().numpy() for _ in range(2)]


def rounded(numbers: list[float]) -> list[float]:
    """What the interpreter's rounding to bfloat16 makes of them."""
    from tests.sdk.triton_rounding import rounding

    tensor = torch.tensor(numbers)
    rounding[(1,)](tensor, len(numbers))
    return tensor.tolist()


def refused() -> dict[str, str]:
    """What is said to wrong arguments."""
    from gradsmith.rules.kernels.triton.kernel import TritonKernel

    rule = make_rule({})
    kernel = TritonKernel(rule, torch.device(CPU))
    weights, state, ones = kernel.weights(rule), kernel.initial_state(5), torch.ones(5)
    attempts = {
        "theta's dtype": lambda: kernel.step(weights, ones.double(), ones, state),
        "gradient's length": lambda: kernel.step(weights, ones, torch.ones(4), state),
        "state's shape": lambda: kernel.step(weights, torch.ones(65), torch.ones(65), state),
        "theta's strides": lambda: kernel.step(weights, torch.ones(10)[::2], ones, state),
        "D's shape": lambda: kernel.window_gradient(weights, state, torch.ones(2, 5), torch.ones(3, 5)),
        "another rule": lambda: kernel.weights(make_rule({"p": 9.0})),
        "a rule too large": lambda: TritonKernel(make_rule({"hidden_size": 33}), torch.device(CPU)),
    }
    said = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except ValueError as error:
            said[name] = str(error)
    return said


def chosen(config: dict[str, Any], *, break_it: str = "") -> list[str]:
    """The kernel that `triton_kernel` hands out, and what it logs; `break_it` names the fault that it shall meet."""
    import logging

    from gradsmith.rules.kernels.triton import choose, step, triton_kernel

    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    keep, whole = Keep(), step.step
    choose.logger.addHandler(keep)
    choose._tried.cache_clear()
    try:
        if break_it == "fails":
            step.step = None
        elif break_it == "wrong":  # the update never reaches theta
            step.step = {(2,): lambda *arguments, **constants: None}  # noqa: ARG005
        for _ in range(2):
            kernel = triton_kernel(make_rule(config), torch.device(CPU), choice="auto")
    finally:
        step.step = whole
        choose.logger.removeHandler(keep)
        choose._tried.cache_clear()
    return ["none" if isinstance(kernel, Refusal) else type(kernel).__name__, *lines]


def compiled(config: dict[str, Any], name: str, capability: int, **settings: Any) -> tuple[str, int]:
    """PTX and bytes of shared memory of one of the programs, for a card that need not be here."""
    import triton
    from triton.backends.compiler import GPUTarget

    from gradsmith.rules.kernels.triton import step, window
    from gradsmith.rules.kernels.triton.kernel import TritonKernel

    program = {"step": step.step, "window_gradient": window.window_gradient}[name]
    kernel = TritonKernel(make_rule(config), torch.device(CPU), **settings)
    constants = dict(kernel.constants)
    options = {option: constants.pop(option) for option in ("num_warps", "num_stages")}
    names = program.arg_names
    constants = {argument: constants[argument] for argument in names if argument in constants}
    kinds = dict.fromkeys(("p", "floor", "scale"), "fp32")
    kinds |= dict.fromkeys(("coordinates", "steps", "blocks", "G_stride", "D_stride", "state_stride"), "i32")
    signature = {argument: "constexpr" if argument in constants else kinds.get(argument, "*fp32") for argument in names}
    source = triton.compiler.ASTSource(program, signature, constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return str(made.asm["ptx"]), int(made.metadata.shared)


def windows_of_the_backend() -> list[float]:
    """The meta-gradients of two windows of training through `TritonBackend`, with a meta-step in place between them,
    and a theta one step further, against the torch backend's."""
    from gradsmith.rules.kernels.triton.kernel import TritonKernel
    from models.backends import TorchBackend, TritonBackend
    from models.families.quadratic import QuadraticSpec
    from models.families.quadratic.tasks import QuadraticFamily
    from models.spec import Split
    from models.unroll import advance, begin, unroll_window

    rule = make_rule({"hidden_size": 5, "layers": 1})
    [tasks] = QuadraticFamily(QuadraticSpec(dimension=4), [Split.TRAIN]).sample(
        Split.TRAIN, seed=0, trajectory=0, tasks=3
    )
    found = []
    for backend in (TritonBackend(rule, TritonKernel(rule, torch.device(CPU), block=16)), TorchBackend(rule)):
        rule.load_state_dict(make_rule({"hidden_size": 5, "layers": 1}).state_dict())
        position, results = begin(tasks, backend), []
        for _ in range(2):
            window, position = unroll_window(tasks, position, 1, backend)
            results.append(window.gradient)
            with torch.no_grad():
                for parameter in rule.parameters():
                    parameter.mul_(1.5)
        found.append([*results, advance(tasks, position, 1, backend, lambda *_: None).theta])
    return [share(ours, truth.double()) for ours, truth in zip(*found, strict=True)]
