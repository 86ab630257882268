"""What code written for torch.optim relies on: `lr` in the groups, state that containers can be mapped over, the same
steps under any default dtype, default device and autocast, and rest for what never had a gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradsmith import LearnedOptimizer
from gradsmith.errors import StateMismatch
from gradsmith.rules import LSTMRule, build
from gradsmith.rules.kernels.triton import Layout
from gradsmith.rules.weights import dumps

BACKENDS = ("native", "torch")


def make_rule() -> LSTMRule:
    rule = build({"kind": "lstm"})
    rule.initialise(torch.Generator().manual_seed(0))
    assert isinstance(rule, LSTMRule)
    return rule


@pytest.fixture(scope="module")
def dcp() -> Any:
    """torch.distributed.checkpoint, imported where it is used: at the top, every process that collects the tests would
    wait for its seconds."""
    import torch.distributed.checkpoint
    import torch.distributed.checkpoint.state_dict

    return torch.distributed.checkpoint


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Steps by the compiled kernel where there is one, and through torch."""
    if request.param != "native":
        monkeypatch.setenv("GRADSMITH_NATIVE", "off")
    return str(request.param)


def stepped(optimizer: LearnedOptimizer, parameters: Sequence[Tensor], gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("size", [5, 1000])
def test_lr_is_a_factor_on_the_update(size: int) -> None:
    whole, half = (nn.Parameter(torch.zeros(size)) for _ in range(2))
    groups: list[dict[str, Any]] = [{"params": [whole]}, {"params": [half], "lr": 0.5}]
    optimizer = LearnedOptimizer(groups, make_rule())
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


@pytest.mark.parametrize("lr", [None, "fast", torch.ones(2)], ids=["none", "text", "several"])
def test_an_lr_that_is_no_number_is_named(lr: Any) -> None:
    with pytest.raises(ValueError, match=r"lr is .*one number"):
        LearnedOptimizer([nn.Parameter(torch.zeros(3))], make_rule(), lr=lr)


@pytest.mark.usefixtures("backend")
def test_lr_may_be_a_tensor() -> None:
    parameters = [nn.Parameter(torch.zeros(5)) for _ in range(2)]
    for parameter, lr in zip(parameters, (0.25, torch.tensor(0.25)), strict=True):
        stepped(LearnedOptimizer([parameter], make_rule(), lr=lr), [parameter], [random(5)])
    assert torch.equal(*parameters)
    assert parameters[0].abs().max() > 0


OPTIONS = [{"weight_decay": 0.1}, {"momentum": 0.9}, {"betas": torch.tensor([0.9, 0.99])}, {"nesterov": True}]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: next(iter(option)))
def test_options_of_other_optimizers_are_refused_wherever_they_come_from(option: dict[str, object]) -> None:
    parameter = nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match="means nothing to a learned optimizer"):
        LearnedOptimizer([{"params": [parameter], **option}], make_rule())
    optimizer = LearnedOptimizer([parameter], make_rule())
    saved = optimizer.state_dict()
    saved["param_groups"][0].update(option)
    with pytest.raises(ValueError, match="means nothing to a learned optimizer"):
        optimizer.load_state_dict(saved)
    assert not option.keys() & optimizer.param_groups[0].keys()
    optimizer.param_groups[0].update(option)
    with pytest.raises(ValueError, match="means nothing to a learned optimizer"):
        stepped(optimizer, [parameter], [torch.ones(3)])
    assert torch.equal(parameter, torch.zeros(3))


def test_options_that_are_off_and_names_of_ones_own_are_taken() -> None:
    group = {"params": [nn.Parameter(torch.zeros(3))], "weight_decay": 0.0, "betas": None, "foreach": True, "name": "a"}
    assert LearnedOptimizer([group], make_rule()).param_groups[0]["name"] == "a"


def test_keywords_that_every_torch_optimizer_takes_are_known() -> None:
    """Either taken, where they are off or only say how, or refused in words; never a TypeError."""
    taken = {"weight_decay": 0.0, "maximize": False, "foreach": True, "fused": True, "capturable": True}
    optimizer = LearnedOptimizer([nn.Parameter(torch.zeros(3))], make_rule(), differentiable=False, **taken)
    assert not taken.keys() & optimizer.param_groups[0].keys(), "what changes nothing is not kept"
    for refused in ({"nesterov": True}, {"weight_decay": 0.01}, {"betas": (0.9, 0.99)}, {"differentiable": True}):
        with pytest.raises(ValueError, match=f"^{next(iter(refused))}="):
            LearnedOptimizer([nn.Parameter(torch.zeros(3))], make_rule(), **refused)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wheight_decay'"):
        LearnedOptimizer([nn.Parameter(torch.zeros(3))], make_rule(), wheight_decay=0.0)


def test_a_groups_own_rule_is_refused_and_never_ignored() -> None:
    first, second = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match=r"asks for the rule 'digits.safetensors'.*one LearnedOptimizer for each rule"):
        LearnedOptimizer([{"params": [first], "rule": "digits.safetensors"}, {"params": [second]}], make_rule())
    optimizer = LearnedOptimizer([first], make_rule())
    with pytest.raises(ValueError, match="asks for the rule"):
        optimizer.add_param_group({"params": [second], "rule": "digits.safetensors"})
    optimizer.add_param_group({"params": [second], "rule": optimizer.param_groups[0]["rule"]})
    optimizer.load_state_dict(optimizer.state_dict())


def test_the_state_of_another_kind_of_optimizer_is_refused_by_its_kind() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    theirs = torch.optim.Adam([parameter]).state_dict()
    with pytest.raises(
        StateMismatch, match=r"another kind of optimizer: its groups name no rule, but .*betas"
    ) as caught:
        LearnedOptimizer([parameter], make_rule()).load_state_dict(theirs)
    assert "None" not in str(caught.value)


def test_an_lr_that_is_no_factor_is_refused_in_a_state_dict() -> None:
    optimizer = LearnedOptimizer([nn.Parameter(torch.zeros(3))], make_rule())
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="lr is nan"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 1.0


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


def test_a_pickle_from_before_lr_steps_on() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    old = LearnedOptimizer([parameter], make_rule()).__getstate__()
    del old["defaults"]["lr"], old["param_groups"][0]["lr"]
    optimizer = LearnedOptimizer.__new__(LearnedOptimizer)
    optimizer.__setstate__(old)
    stepped(optimizer, [parameter], [torch.ones(3)])
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0]
    assert parameter.abs().max() > 0


@pytest.mark.usefixtures("backend")
def test_a_run_goes_on_from_a_distributed_checkpoint_bit_for_bit(tmp_path: Path, dcp: Any) -> None:
    def made(seed: int) -> tuple[nn.Linear, LearnedOptimizer]:
        model = nn.Linear(6, 4)
        for parameter in model.parameters():
            parameter.data = random(*parameter.shape, seed=seed)
        return model, LearnedOptimizer(model.parameters(), make_rule())

    def train(model: nn.Linear, optimizer: LearnedOptimizer, first: int) -> None:
        for step in range(first, first + 3):
            parameters = list(model.parameters())
            stepped(optimizer, list(parameters), [random(*p.shape, seed=step) for p in parameters])

    def state(model: nn.Linear, optimizer: LearnedOptimizer) -> dict[str, Any]:
        optimizer.zero_grad()  # torch makes room in a fresh optimizer only where there are no gradients
        return dict(zip(("model", "optimizer"), dcp.state_dict.get_state_dict(model, optimizer), strict=True))

    model, optimizer = made(seed=1)
    train(model, optimizer, 0)
    other, resumed = made(seed=2)
    # A process of one needs no group; DCP warns of it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state(model, optimizer), checkpoint_id=tmp_path)
        loaded = state(other, resumed)
        dcp.load(loaded, checkpoint_id=tmp_path)
        both = {"model_state_dict": loaded["model"], "optim_state_dict": loaded["optimizer"]}
        dcp.state_dict.set_state_dict(other, resumed, **both)
    for owner in ((model, optimizer), (other, resumed)):
        train(*owner, 3)
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_hooks_of_load_state_dict_decide_and_see_what_is_loaded() -> None:
    parameter, twin = (nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimizer, other = (LearnedOptimizer([each], make_rule()) for each in (parameter, twin))
    stepped(optimizer, [parameter], [torch.ones(3)])
    seen: list[Tensor] = []

    def halved(_: Optimizer, given: dict[str, Any]) -> dict[str, Any]:
        memory = tuple(tensor / 2 for tensor in given["state"][0]["memory"])
        return {**given, "state": {0: {"memory": memory}}}

    other.register_load_state_dict_pre_hook(halved)
    other.register_load_state_dict_post_hook(lambda loaded: seen.extend(loaded.state[twin]["memory"]))
    other.load_state_dict(optimizer.state_dict())
    wanted = [tensor / 2 for tensor in optimizer.state[parameter]["memory"]]
    assert wanted
    assert all(map(torch.equal, seen, wanted))
    assert all(map(torch.equal, other.state[twin]["memory"], wanted))


def test_a_hook_of_state_dict_may_add_an_entry_that_is_loaded_again() -> None:
    optimizer = LearnedOptimizer([nn.Parameter(torch.zeros(3))], make_rule())
    optimizer.register_state_dict_pre_hook(lambda saving: saving.state.__setitem__("epoch", 7))  # type: ignore[index]
    saved = optimizer.state_dict()
    assert saved["state"]["epoch"] == 7
    other = LearnedOptimizer([nn.Parameter(torch.zeros(3))], make_rule())
    other.load_state_dict(saved)
    assert other.state_dict()["state"]["epoch"] == 7


def test_a_distributed_checkpoint_moves_nothing(dcp: Any) -> None:
    model = nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    dcp.state_dict.get_optimizer_state_dict(model, LearnedOptimizer(model.parameters(), make_rule()))
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


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weights_for_triton_are_laid_out_alike_under_any_default_device(device: str) -> None:
    rule = make_rule()
    wanted = Layout(rule).padded_weights(rule)
    with torch.device(device):
        found = Layout(rule).padded_weights(rule)
    assert torch.equal(found, wanted)


DEFAULTS = [
    {"dtype": dtype, "device": device, "when": when}
    for dtype, device in (("float16", "cpu"), ("bfloat16", "cpu"), ("float64", "meta"), ("float32", "meta"))
    for when in ("before", "after")
]
UNCHANGED = {"dtype": "float32", "device": "cpu", "when": "before"}
HOMES = ("another user's", "none")


@pytest.fixture(scope="module")
def steps_in_forks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What three steps leave in fresh processes of all the settings, by the setting."""
    folder = tmp_path_factory.mktemp("steps")
    path = folder / "rule.safetensors"
    path.write_bytes(dumps(make_rule()))
    # A file in the place of the home: nothing below it can be read or made, for root neither.
    (folder / "home").write_text("")
    homeless = {"HOME": str(folder / "home"), "PATH": "/usr/bin:/bin"}
    settings = {
        setting_id(backend, **defaults): {
            **defaults,
            "environment": {**os.environ, **({} if backend == "native" else {"GRADSMITH_NATIVE": "off"})},
        }
        for backend in BACKENDS
        for defaults in (UNCHANGED, *DEFAULTS)
    }
    settings |= {home: {**UNCHANGED, "home": home, "environment": homeless} for home in HOMES}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("steps_in_forks.py"), path],
        input=json.dumps(list(settings.values())), capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(settings, json.loads(done.stdout), strict=True))


def setting_id(backend: str, dtype: str, device: str, when: str) -> str:
    return f"{backend} {dtype} {device} {when}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("defaults", DEFAULTS, ids=lambda defaults: "-".join(defaults.values()))
def test_defaults_of_torch_change_nothing(
    steps_in_forks: dict[str, str], backend: str, defaults: dict[str, str]
) -> None:
    plain = steps_in_forks[setting_id(backend, **UNCHANGED)]
    assert len(bytes.fromhex(plain)) == 400
    assert steps_in_forks[setting_id(backend, **defaults)] == plain


@pytest.mark.timeout(300)
@pytest.mark.parametrize("home", HOMES)
def test_a_step_needs_no_home(steps_in_forks: dict[str, str], home: str) -> None:
    assert steps_in_forks[home] == steps_in_forks[setting_id("torch", **UNCHANGED)]  # no kernel can be compiled
