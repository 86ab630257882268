"""What code written for torch.optim relies on: `lr` in the groups, state that containers can be mapped over, the same
steps under any default dtype, default device and autocast, and rest for what never had a gradient."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from gradsmith import LearnedOptimizer
from gradsmith.rules import LSTMRule, build, initialise
from gradsmith.rules.weights import dumps

BACKENDS = ("native", "torch")


def make_rule() -> LSTMRule:
    rule = build({"kind": "lstm"})
    initialise(rule, torch.Generator().manual_seed(0))
    assert isinstance(rule, LSTMRule)
    return rule


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Steps by the compiled kernel where there is one, and through torch."""
    monkeypatch.setenv("GRADSMITH_NATIVE", "auto" if request.param == "native" else "off")
    return str(request.param)


def stepped(optimizer: LearnedOptimizer, parameters: list[Tensor], gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("size", [5, 1000])
def test_lr_is_a_factor_on_the_update(size: int) -> None:
    whole, half = (nn.Parameter(torch.zeros(size)) for _ in range(2))
    optimizer = LearnedOptimizer([{"params": [whole]}, {"params": [half], "lr": 0.5}], make_rule())
    for step in range(3):
        stepped(optimizer, [whole, half], [random(size, seed=step)] * 2)
    torch.testing.assert_close(half, whole / 2, rtol=1e-6, atol=1e-7)
    assert half.abs().max() > 0


@pytest.mark.usefixtures("backend")
def test_lr_of_zero_leaves_parameter_and_memory_alone() -> None:
    parameter = nn.Parameter(random(7))
    optimizer = LearnedOptimizer([parameter], make_rule())
    stepped(optimizer, [parameter], [random(7, seed=1)])
    before = parameter.detach().clone(), [tensor.clone() for tensor in optimizer.state[parameter]["memory"]]
    optimizer.param_groups[0]["lr"] = 0.0
    stepped(optimizer, [parameter], [random(7, seed=2)])
    assert torch.equal(parameter, before[0])
    assert all(map(torch.equal, optimizer.state[parameter]["memory"], before[1]))


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_an_lr_that_is_no_factor_is_refused(lr: float) -> None:
    parameter = nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match="lr is"):
        LearnedOptimizer([parameter], make_rule(), lr=lr)
    optimizer = LearnedOptimizer([parameter], make_rule())
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match="lr is"):
        stepped(optimizer, [parameter], [torch.ones(3)])
    assert torch.equal(parameter, torch.zeros(3))


@pytest.mark.parametrize("option", [{"weight_decay": 0.1}, {"momentum": 0.9}, {"betas": (0.9, 0.99)}])
def test_options_of_other_optimizers_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="means nothing to a learned optimizer"):
        LearnedOptimizer([{"params": [nn.Parameter(torch.zeros(3))], **option}], make_rule())


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.5),
    ],
    ids=["lambda", "cosine", "linear"],
)
def test_schedulers_work_as_on_torchs_own(schedule: Callable[[torch.optim.Optimizer], object]) -> None:
    parameter, control = (nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimizers = LearnedOptimizer([parameter], make_rule()), torch.optim.SGD([control], lr=1.0)
    schedulers = [schedule(optimizer) for optimizer in optimizers]
    for _ in range(4):
        stepped(optimizers[0], [parameter], [torch.ones(3)])
        control.grad = torch.ones(3)
        optimizers[1].step()
        for scheduler in schedulers:
            scheduler.step()  # type: ignore[attr-defined]
        assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"]


def test_a_state_dict_from_before_lr_is_loaded() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = LearnedOptimizer([parameter], make_rule())
    stepped(optimizer, [parameter], [torch.ones(3)])
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["lr"]
    other = LearnedOptimizer([parameter], make_rule(), lr=0.5)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 1.0


def test_a_distributed_checkpoint_moves_nothing() -> None:
    model = nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    get_optimizer_state_dict(model, LearnedOptimizer(model.parameters(), make_rule()))
    assert all(map(torch.equal, model.parameters(), before))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("sizes", [(1000,), (3, 4, 5), (70, 1)])
def test_what_never_had_a_gradient_does_not_move(sizes: tuple[int, ...]) -> None:
    parameters = [nn.Parameter(random(size)) for size in sizes]
    starts = [parameter.detach().clone() for parameter in parameters]
    optimizer = LearnedOptimizer(parameters, make_rule())
    dead = [torch.arange(size) % 3 == 1 for size in sizes]
    for step in range(3):
        gradients = [random(size, seed=step).masked_fill(rests, 0) for size, rests in zip(sizes, dead, strict=True)]
        stepped(optimizer, list(parameters), gradients)
    for parameter, start, rests in zip(parameters, starts, dead, strict=True):
        assert torch.equal(parameter[rests], start[rests])
        assert bool((parameter[~rests] != start[~rests]).all())
        assert all(bool((tensor[rests] == 0).all()) for tensor in optimizer.state[parameter]["memory"])
    # Once it had one, it moves on where the gradient is zero, as the rule says.
    first = parameters[0].detach().clone()
    stepped(optimizer, list(parameters), [torch.zeros(size) for size in sizes])
    assert bool((parameters[0][~dead[0]] != first[~dead[0]]).all())
    assert torch.equal(parameters[0][dead[0]], starts[0][dead[0]])


def test_state_can_be_mapped_over_as_lightning_does() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = LearnedOptimizer([parameter], make_rule())
    stepped(optimizer, [parameter], [torch.ones(3)])
    memory = optimizer.state[parameter]["memory"]
    rebuilt = type(memory)([tensor.clone() for tensor in memory])
    twin = nn.Parameter(parameter.detach().clone())
    other = LearnedOptimizer([twin], make_rule())
    other.state[twin]["memory"] = rebuilt
    for each, owner in ((parameter, optimizer), (twin, other)):
        stepped(owner, [each], [torch.full((3,), 2.0)])
    assert torch.equal(parameter, twin)


@pytest.mark.usefixtures("backend")
def test_autocast_changes_nothing() -> None:
    inside, outside = (nn.Parameter(torch.zeros(100)) for _ in range(2))
    optimizers = [LearnedOptimizer([parameter], make_rule()) for parameter in (inside, outside)]
    for step in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            stepped(optimizers[0], [inside], [random(100, seed=step)])
        stepped(optimizers[1], [outside], [random(100, seed=step)])
    assert torch.equal(inside, outside)


_UNDER = """
import sys, torch
from gradsmith import LearnedOptimizer
path, dtype, device, when = sys.argv[1:]
def set_defaults():
    torch.set_default_dtype(getattr(torch, dtype))
    torch.set_default_device(device)
if when == "before": set_defaults()
parameter = torch.nn.Parameter(torch.zeros(100, dtype=torch.float32, device="cpu"))
optimizer = LearnedOptimizer([parameter], path)
if when == "after": set_defaults()
for step in range(3):
    parameter.grad = torch.linspace(-1, 1, 100, dtype=torch.float32, device="cpu") * (step + 1)
    optimizer.step()
assert all(t.dtype == torch.float32 and t.device.type == "cpu" for t in optimizer.state[parameter]["memory"])
sys.stdout.buffer.write(parameter.detach().numpy().tobytes())
"""


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("dtype", "device"), [("float16", "cpu"), ("bfloat16", "cpu"), ("float64", "meta")])
def test_defaults_of_torch_change_nothing(tmp_path: Path, dtype: str, device: str, when: str) -> None:
    path = tmp_path / "rule.safetensors"
    path.write_bytes(dumps(make_rule()))

    def run(*defaults: str) -> bytes:
        command = [sys.executable, "-c", _UNDER, str(path), *defaults]
        return subprocess.run(command, capture_output=True, check=True, timeout=100).stdout

    assert run(dtype, device, when) == run("float32", "cpu", when)


@pytest.mark.parametrize("home", ["another user's", "none"])
def test_a_step_needs_no_home(tmp_path: Path, home: str) -> None:
    path = tmp_path / "rule.safetensors"
    path.write_bytes(dumps(make_rule()))
    program = (
        "import pathlib, sys\n"
        "def refuse(*args, **kwargs): raise RuntimeError('Could not determine home directory.')\n"
        f"if {home == 'none'}: pathlib.Path.home = refuse\n" + _UNDER
    )
    # A file in the place of the home: nothing below it can be read or made, for root neither.
    (tmp_path / "home").write_text("")
    environment = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", program, str(path), "float32", "cpu", "before"]
    done = subprocess.run(command, capture_output=True, text=False, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout) == 400
