"""`./run bench core --cuda`: meta-steps a second on a CUDA device, for 1 and 64 networks on MNIST's shape.

Ours from a CUDA graph, ours without, ours with bfloat16 products and our torch backend, against eager PyTorch on the
same card (two nn.LSTMCell, autograd through the window), all on the same tasks, interleaved, medians of five turns;
JAX's scan beside them for one network, where it is installed with a device of its own. Shares are of float32
multiply-adds as a large matrix product without TF32 reaches them on this card, at 29.6 kFLOP a coordinate-step.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from benchmarks.core.ceilings import FLOP
from benchmarks.core.peers.ours import rule_with
from benchmarks.core.peers.plain_torch import CoordinatewiseLSTM
from benchmarks.core.problem import HORIZON, META_LEARNING_RATE, MLP
from benchmarks.core.reference import starting_weights
from gradsmith.rules import LSTMRule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.triton import triton_kernel
from models.backends import Backend, TorchBackend, TritonBackend
from models.captured import windows
from models.families.mlp import MLPSpec
from models.families.mlp.tasks import MLPBatch
from models.meta_optimizer import AdamState
from models.spec import Split
from models.tasks.base import TaskBatch
from models.tasks.images import Images
from models.tasks.randomness import task_seeds
from models.training.rule import load_weights
from models.unroll import begin, unroll_window

UNROLL_STEPS = MLP.unroll_steps
TURNS = 5
Run = Callable[[int], None]
"""Goes on for that many meta-steps."""


def main() -> int:
    """Measure and print; 1 where there is no CUDA device."""
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.")
        return 1
    device = torch.device("cuda", 0)
    flops = gemm_flops(device)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}: {flops / 1e12:.1f} TFLOP/s in float32\n")
    print("| networks | who | meta-steps/s | coordinate-steps/s | of the limit |\n|---|---|---|---|---|")
    for count in (1, 64):
        tasks = networks(count, device)
        for name, rate in measured(contenders(tasks, device), device).items():
            steps = rate * tasks.coordinates * UNROLL_STEPS
            print(f"| {count} | {name} | {rate:.4g} | {steps:.2e} | {steps * FLOP / flops:.0%} |", flush=True)
    return 0


def networks(count: int, device: torch.device) -> TaskBatch:
    """`count` networks 784-20-10 on synthetic images of MNIST's size, minibatches of 128."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12_800, 784), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.randint(0, 10, (12_800,), generator=generator), 1 / 255)
    seeds = task_seeds(Split.TRAIN, "benchmark/mlp", 0, 0, 0, count)
    return MLPBatch(MLPSpec(dataset="mnist"), seeds, images, images, torch.float32, device)


def contenders(tasks: TaskBatch, device: torch.device) -> dict[str, Run]:
    """Who runs, by name; what cannot run here is left out."""
    runs: dict[str, Run] = {}
    for name, choice in (("ours", "auto"), ("ours, bf16 products", "bf16")):
        for captured, how in ((True, "CUDA graph"), (False, "no graph")):
            rule = rule_with(starting_weights()).to(device)
            kernel = triton_kernel(rule, device, choice=choice)  # type: ignore[arg-type]
            if not isinstance(kernel, Refusal):
                runs[f"{name}, {how}"] = ours(tasks, rule, TritonBackend(rule, kernel), captured=captured)
    rule = rule_with(starting_weights()).to(device)
    runs["ours, torch backend"] = ours(tasks, rule, TorchBackend(rule), captured=False)
    runs["eager PyTorch"] = eager(tasks)
    if tasks.tasks == 1 and importlib.util.find_spec("jax") is not None:
        runs["JAX scan + checkpoint"] = jax_scan()
    return runs


def ours(tasks: TaskBatch, rule: LSTMRule, backend: Backend, *, captured: bool) -> Run:
    """Our meta-training without what surrounds it: windows, Adam, the weights put back."""
    window_of = windows(backend, tasks.device)
    weights = parameters_to_vector(rule.parameters()).detach().clone()
    state = (begin(tasks, backend), weights, AdamState.zero(weights))

    def run(meta_steps: int) -> None:
        nonlocal state
        position, weights, adam = state
        for _ in range(meta_steps):
            if position.step + UNROLL_STEPS > HORIZON:
                position = begin(tasks, backend)
            if captured:
                window, position = window_of(tasks, position, UNROLL_STEPS)
            else:
                window, position = unroll_window(tasks, position, UNROLL_STEPS, backend)
            weights, adam = adam.updated(weights, window.gradient, META_LEARNING_RATE)
            load_weights(rule, weights)
        state = position, weights, adam

    return run


def eager(tasks: TaskBatch) -> Run:
    """The straightforward version: keeps the window's graph, one backward through it all, torch's Adam."""
    net: nn.Module = CoordinatewiseLSTM().to(tasks.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=META_LEARNING_RATE)
    theta, memory, gradient, at = torch.empty(0), (), torch.empty(0), HORIZON

    def gradient_at(theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        loss = tasks.losses(theta, step).sum()
        (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
        return loss, gradient

    def run(meta_steps: int) -> None:
        nonlocal theta, memory, gradient, at
        for _ in range(meta_steps):
            if at + UNROLL_STEPS > HORIZON:
                theta, at = tasks.initial().requires_grad_(), 0
                memory = tuple(torch.zeros(tasks.coordinates, 20, device=tasks.device) for _ in range(4))
                _, gradient = gradient_at(theta, 0)
            optimizer.zero_grad()
            total = torch.zeros((), device=tasks.device)
            for step in range(at + 1, at + UNROLL_STEPS + 1):
                update, memory = net(gradient.detach(), memory)
                theta = theta + update
                loss, gradient = gradient_at(theta, step)
                total = total + loss
            (total / tasks.tasks).backward()
            optimizer.step()
            theta, at = theta.detach().requires_grad_(), at + UNROLL_STEPS
            memory = tuple(tensor.detach() for tensor in memory)

    return run


def jax_scan() -> Run:
    """The peer of the CPU benchmark, on the device that JAX finds."""
    from benchmarks.core import problem, tasks
    from benchmarks.core.peers import jax_scan as peer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        tasks.export(MLP, path)
        made = peer.make(problem.load(path), starting_weights(), 1)
    made.begin()
    return made.run


def measured(runs: dict[str, Run], device: torch.device) -> dict[str, float]:
    """Meta-steps a second, medians; a warm-up compiles and captures, and says how many make half a second."""
    lengths: dict[str, int] = {}
    for name, run in runs.items():
        timed(run, HORIZON // UNROLL_STEPS, device)
        lengths[name] = max(2, round(0.5 / timed(run, 2, device)) * 2)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            rates[name].append(lengths[name] / timed(run, lengths[name], device))
    return {name: statistics.median(found) for name, found in rates.items()}


def timed(run: Run, meta_steps: int, device: torch.device) -> float:
    """Seconds until the device is done."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    synchronize(device)
    started = time.perf_counter()
    run(meta_steps)
    synchronize(device)
    return time.perf_counter() - started


def gemm_flops(device: torch.device, size: int = 4096) -> float:
    """FLOP/s of a large float32 matrix product, without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    a = torch.randn(size, size, device=device)

    def products(count: int) -> None:
        for _ in range(count):
            torch.mm(a, a)

    timed(products, 3, device)
    return max(20 * 2 * size**3 / timed(products, 20, device) for _ in range(3))


if __name__ == "__main__":
    sys.exit(main())
