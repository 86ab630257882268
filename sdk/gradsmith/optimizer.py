"""LearnedOptimizer: a trained rule as an ordinary `torch.optim.Optimizer`."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from gradsmith.errors import StateMismatch, UnknownRule, UnknownSource, UnsupportedGradient, UnsupportedParameter
from gradsmith.range_check import RangeCheck
from gradsmith.rules import Rule, Rules, RuleSet, State  # before torch: it says how to install torch when missing
from gradsmith.rules.configs import written
from gradsmith.rules.weights import dumps, load, loads

from gradsmith.axes import MEMORY, Place, Placement, needs_another, readable  # isort: skip
import torch  # isort: skip
from torch import Tensor  # isort: skip
from torch.optim.optimizer import Optimizer, ParamsT  # isort: skip

if TYPE_CHECKING:
    from gradsmith.client import Client

Source = Rules | str | PathLike[str] | bytes
"""Where a rule comes from: the object itself, a weights file or its bytes, or a reference such as "quadratic@best"."""

_OTHERS_OPTIONS = (
    *("weight_decay", "decoupled_weight_decay", "lr_decay", "momentum", "momentum_decay", "dampening"),
    *("nesterov", "betas", "beta2_decay", "eps", "amsgrad", "alpha", "centered", "rho", "etas", "step_sizes"),
    *("initial_accumulator_value", "lambd", "t0", "ns_coefficients", "ns_steps", "adjust_lr_fn"),
)
"""Options of torch's own optimizers that change what they compute."""

_WAYS = ("foreach", "fused", "capturable", "differentiable")
"""Options of torch's own optimizers that say how they compute; the rule has its own ways."""

_REFERENCE = re.compile(r"opt_[0-9a-zA-Z]+|[a-z0-9][a-z0-9._-]*@[a-zA-Z0-9._-]+")


@dataclass(frozen=True)
class _Kept:
    """Memory on its way into the optimizer, which torch carries as it is."""

    memory: State


class LearnedOptimizer(Optimizer):
    """Train a model with a learned rule: `theta <- theta + rule(gradient)`.

    params: parameters or parameter groups, as for every torch optimizer. They may be float16, bfloat16, float32 (the
        rule computes in float32) or float64 (in float64), on any device. All that have a gradient are laid on one
        axis of coordinates, over which the rule runs: on a CPU in one call of the compiled kernel, where there is one
    rule: what to train with. A `Rule` or a `RuleSet`; a weights file (a path, or the file's bytes); or the reference
        of an optimizer in the service: "quadratic@best", "quadratic@3", "opt_0190...". Each rule of a set moves the
        parameters that its pattern matches (`gradsmith.rules.assignment`). A parameter's name is known where
        `model.named_parameters()` was given; its role is `weight` from two dimensions on, else `bias` or `vector`.
        `print(optimizer)` shows which rule moves what
    lr: each group's factor on the update: 1.0 as the rule was trained; 0 leaves parameters and their memory alone.
        Schedulers change it as they do that of every torch optimizer
    maximize: True: the loss is to rise, which the rule sees as the negative gradient. A group may have its own
    client: the `gradsmith.Client` that references are fetched with; default: one for GRADSMITH_URL
    state_dtype: what the rule's memory is kept in between steps, 80 numbers for each coordinate of the 2x20 LSTM.
        torch.float32 (float64 for float64 parameters), or torch.bfloat16: half of the memory, a little rounding. Counts
        of steps stay exact
    steps: how many there will be, for rules that know how long a run is (their cards say so): those that end with their
        learning rate at zero, for example. Memory that is loaded remembers its own number
    threads: of the compiled kernel; default: torch.get_num_threads(), asked in each step. The bits do not depend on it

    options: those of torch's own optimizers, for code that passes them to each optimizer alike. What only says how a
        step is computed (foreach, fused, ...) is taken and changes nothing

    The rule has learned its own learning rate, so `lr` is best left at 1. Options that would change another optimizer's
    step, such as weight_decay, are refused unless they are off, for they would change nothing. A coordinate that has
    never had a gradient other than zero does not move. A gradient that is NaN or infinite reaches the rule's memory and
    stays there, as in torch's own optimizers with momentum; check the loss if that can happen.

    Warns (OutsideTrainingWarning), once each, where its file says that it is used far outside its training: for over
    twice the steps, on over a hundred times the parameters, or although it lost where it was measured.

    Raises ValueError for an lr that is negative or not finite and for options of other optimizers, WeightsError for an
    unusable file, UnknownSource for a text that names nothing, UnsupportedParameter for
    integer, complex or sparse parameters, and what `Client.optimizers.pull` raises for a reference.
    """

    def __init__(
        self,
        params: ParamsT,
        rule: Source,
        *,
        lr: float | Tensor = 1.0,
        maximize: bool = False,
        client: Client | None = None,
        state_dtype: torch.dtype = torch.float32,
        threads: int | None = None,
        steps: int | None = None,
        **options: Any,
    ) -> None:
        unknown = options.keys() - {*_OTHERS_OPTIONS, *_WAYS}
        if unknown:
            raise TypeError(f"LearnedOptimizer() got an unexpected keyword argument {min(unknown)!r}")
        _require_own_options(options)
        if options.get("differentiable"):
            raise ValueError("differentiable=True: a learned optimizer moves parameters in place, outside of autograd")
        if state_dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"state_dtype must be torch.float32 or torch.bfloat16, not {state_dtype}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, or None for as many as torch uses, not {threads}")
        self._rule = copy.deepcopy(rule_from(rule, client)).requires_grad_(False)
        if steps is not None and steps < 1:
            raise ValueError(f"steps must be at least 1, or None where nobody knows, not {steps}")
        self._state_dtype, self._threads, self._steps = state_dtype, threads, steps
        self._begin()
        # In every group: `print(optimizer)` shows it, and a state dict says which rule its memory belongs to.
        for member in self._members:
            member.plan(member.initial_state(0), steps)
        defaults = {"rule": _signature(self._rule), "lr": lr}
        super().__init__(params, defaults | ({"maximize": True} if maximize else {}))
        self._range = RangeCheck(self._rule.origin, steps)

    def _begin(self) -> None:
        """What follows from the rule and the settings, and is not saved with them."""
        self._members = [rule for _, rule in self._rule.members()] if isinstance(self._rule, RuleSet) else [self._rule]
        self._owners: dict[Tensor, int] = {}  # which of the rules moves a parameter
        self._placement = Placement(self._members, self._state_dtype, self._threads, self._steps)

    def _owner(self, group: Mapping[str, Any], position: int, parameter: Tensor) -> int:
        """The place of a parameter's rule. Raises UnknownRule where none is for it."""
        found = self._owners.get(parameter)
        if found is None:
            found = 0
            if isinstance(self._rule, RuleSet):
                found = self._rule.number_of(_name(group, position), _roles(parameter))
            self._owners[parameter] = found
        return found

    def _coordinates(self) -> int:
        return sum(parameter.numel() for group in self.param_groups for parameter in group["params"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters in mid-training; their memory begins at zero. Raises UnsupportedParameter, and
        UnknownRule where a parameter has no rule."""
        _factor(param_group.get("lr", self.defaults["lr"]))
        _require_own_options(param_group)
        if param_group.get("rule", self.defaults["rule"]) != self.defaults["rule"]:
            raise ValueError(
                f"a parameter group asks for the rule {param_group['rule']!r}; all groups of an optimizer run the rule "
                f"that it was built with. Build one LearnedOptimizer for each rule, or give a RuleSet, whose patterns "
                f"say which rule moves which parameters"
            )
        super().add_param_group(param_group)
        for number, parameter in enumerate(self.param_groups[-1]["params"]):
            kind = str(parameter.dtype).removeprefix("torch.")
            dense = parameter.is_floating_point() and parameter.layout == torch.strided
            if not dense or _is_wrapper(parameter):
                self.param_groups.pop()
                raise UnsupportedParameter(
                    f"parameter {number} of the group is a {type(parameter).__name__} of dtype {kind} and layout "
                    f"{parameter.layout}; a learned optimizer trains dense real floating-point tensors that hold their "
                    f"numbers themselves. Leave it out, or give it to another optimizer"
                )
            try:
                self._owner(self.param_groups[-1], number, parameter)
            except UnknownRule:
                self.param_groups.pop()
                raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient; `closure` re-evaluates the loss and returns it.

        Where a group's lr is 0, parameters and what memory they have stay; those without any get the initial one, for
        torch's distributed checkpoints make room for what they load by such a step.

        Sparse gradients are made dense, so that a step costs what it costs for a dense one.

        Raises UnsupportedGradient for gradients that do not hold their numbers or have another shape, and ValueError
        for a group's lr or for options of other optimizers as `add_param_group` does; before anything has moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._range.stepped(self._coordinates)
        moving: list[tuple[int, int, Tensor]] = []
        rates: dict[Tensor, float] = {}
        others: list[tuple[Tensor, bool]] = []  # parameters whose gradients are read otherwise than they are
        owners = self._owners
        for number, group in enumerate(self.param_groups):
            rate = _factor(group["lr"])
            _require_own_options(group)
            maximize = bool(group.get("maximize"))
            for position, parameter in enumerate(group["params"]):
                if parameter.grad is not None and (rate or MEMORY not in self.state[parameter]):
                    _require_fitting(parameter, parameter.grad)
                    owner = owners.get(parameter)
                    owner = self._owner(group, position, parameter) if owner is None else owner
                    moving.append((owner, number, parameter))
                    rates[parameter] = rate
                    if needs_another(parameter.grad, maximize):
                        others.append((parameter, maximize))
        with contextlib.ExitStack() as plain:
            if others:
                plain.enter_context(readable(others))
            for device in {parameter.device.type for parameter in rates}:
                plain.enter_context(torch.autocast(device, enabled=False))  # a caller's autocast is not for the rule
            for axis, parameters in self._placement.axes(moving, self.state).items():
                factors = [0.0 if parameter is None else rates[parameter] for parameter in parameters]
                if any(factors):
                    axis.step([p if factor else None for p, factor in zip(parameters, factors, strict=True)], factors)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`, bit for bit.

        Raises StateMismatch when it was saved with another rule or for parameters of other sizes, and ValueError for an
        lr or options that `add_param_group` refuses; nothing has changed then.
        """
        # Added now, it runs after the hooks of others: what they return is what is checked and loaded.
        last = self.register_load_state_dict_pre_hook(lambda _, given: self._checked(given))
        try:
            super().load_state_dict(state_dict)
        finally:
            last.remove()

    def _checked(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The state dict with lr in each group and its memory kept from torch, which would cast it to the parameter's
        dtype and round that of half precision; `__setstate__` opens it again."""
        for group in state_dict["param_groups"]:
            if "rule" not in group:
                raise StateMismatch(
                    f"this state dict is that of another kind of optimizer: its groups name no rule, but "
                    f"{', '.join(sorted(group.keys() - {'params'})) or 'nothing'}. Its memory means nothing to a "
                    f"learned rule; load one that LearnedOptimizer saved, or start with fresh state"
                )
            if group["rule"] != _signature(self._rule):
                raise StateMismatch(
                    f"this state dict was saved with the rule {group['rule']!r}; this optimizer runs "
                    f"{_signature(self._rule)!r}. Build LearnedOptimizer with the same weights (pin a version, such "
                    f"as quadratic@3, instead of an alias that moves), or start with fresh state"
                )
        # Those of earlier versions have no lr.
        groups = [{"lr": 1.0, **group} for group in state_dict["param_groups"]]
        for group in groups:
            _factor(group["lr"])
            _require_own_options(group)
        mine = [
            (self._owner(group, position, parameter), parameter)
            for group in self.param_groups
            for position, parameter in enumerate(group["params"])
        ]
        theirs = [index for group in state_dict["param_groups"] for index in group["params"]]
        if len(mine) == len(theirs):  # otherwise torch's own message says it best
            for number, ((owner, parameter), index) in enumerate(zip(mine, theirs, strict=True)):
                self._require_fit(number, owner, parameter, state_dict["state"].get(index, {}).get(MEMORY))
        state = {
            index: {name: _Kept(value) if name == MEMORY else value for name, value in entry.items()}
            if isinstance(entry, dict)
            else entry
            for index, entry in state_dict["state"].items()
        }
        return {**state_dict, "state": state, "param_groups": groups}

    def state_dict(self) -> dict[str, Any]:
        """The state of a torch optimizer. Each parameter's memory is a copy, the tuple of tensors (coordinates, width)
        that its rule has, whatever machine and kernel it ran on."""
        saved = super().state_dict()
        saved["state"] = {
            index: {name: tuple(value) if isinstance(value, Place) else value for name, value in entry.items()}
            if isinstance(entry, dict)  # hooks may have added others
            else entry
            for index, entry in saved["state"].items()
        }
        return saved

    def _require_fit(self, number: int, owner: int, parameter: Tensor, memory: State | None) -> None:
        if memory is None:
            return
        fresh = self._members[owner].memory_for([tuple(parameter.shape)], device="meta")
        expected = [tuple(tensor.shape) for tensor in fresh]
        found = [tuple(tensor.shape) for tensor in memory]
        if found != expected:
            raise StateMismatch(
                f"parameter {number} has {parameter.numel()} coordinates and needs memory of shapes {expected}; the "
                f"state dict has {found}. It belongs to another model"
            )

    def __repr__(self) -> str:
        """The groups; where there are several rules, also which moves what."""
        if not isinstance(self._rule, RuleSet):
            return super().__repr__()
        lines = [super().__repr__()]
        for number, (pattern, rule) in enumerate(self._rule.members()):
            lines.append(f"{pattern!r}: {_described(written(rule.config()))}")
            for group in self.param_groups:
                for position, parameter in enumerate(group["params"]):
                    if self._owner(group, position, parameter) == number:
                        lines.append(f"    {_name(group, position) or 'without a name'} {tuple(parameter.shape)}")
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, Any]:  # torch's own keeps three attributes and would lose the rule
        own: dict[str, Any] = {"_rule": self._rule, "_state_dtype": self._state_dtype, "_threads": self._threads}
        own |= {"_steps": self._steps, "_range": self._range}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_steps", None)  # pickles of earlier versions have none
        self.__dict__.setdefault("_range", RangeCheck(None, None))  # so do these
        self.defaults.setdefault("lr", 1.0)  # pickles of earlier versions have none
        for group in self.param_groups:
            group.setdefault("lr", 1.0)
        self._begin()
        for group in self.param_groups:
            for position, parameter in enumerate(group["params"]):
                entry = self.state.get(parameter)
                kept = entry.get(MEMORY) if isinstance(entry, dict) else None
                if isinstance(entry, dict) and isinstance(kept, _Kept):
                    rule = self._members[self._owner(group, position, parameter)]
                    fresh = rule.initial_state(0, dtype=self._placement.stored_in(parameter), device="meta")
                    entry[MEMORY] = tuple(
                        tensor.to(parameter.device, like.dtype) for tensor, like in zip(kept.memory, fresh, strict=True)
                    )


def rule_from(source: Source, client: Client | None = None) -> Rules:
    """The rule that `source` names, or the set of rules; see `LearnedOptimizer`."""
    if isinstance(source, Rule | RuleSet):
        return source
    if isinstance(source, bytes):
        return loads(source)
    if not isinstance(source, str):
        return load(source)
    if Path(source).is_file():
        return load(source)
    if _REFERENCE.fullmatch(source):
        if client is not None:
            return loads(client.optimizers.pull(source))
        from gradsmith.client import Client  # httpx is only needed here

        with Client() as own:
            return loads(own.optimizers.pull(source))
    raise UnknownSource(
        f"{source!r} is neither a weights file on this machine nor the reference of an optimizer. Give a path, or a "
        f"reference such as 'quadratic@best', 'quadratic@3' or 'opt_...'"
    )


def _factor(lr: float | Tensor) -> float:
    """A group's `lr` as a number. Raises ValueError when it is negative or not finite."""
    try:
        value = float(lr)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"lr is {lr!r}; it is a factor on the rule's update: one number, or a tensor of one number"
        ) from error
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"lr is {value}; it is a factor on the rule's update: 1.0 as trained, 0 to rest, never below 0"
        )
    return value


def _require_own_options(group: Mapping[str, Any]) -> None:
    """Raises ValueError where a group sets what only other optimizers have; what is off (0, False, None) may stay."""
    for option in _OTHERS_OPTIONS:
        value = group.get(option)
        if value is not None and (isinstance(value, Tensor) or value):
            raise ValueError(
                f"{option}={value!r} in a parameter group means nothing to a learned optimizer: its rule decides all "
                f"but lr and maximize. Leave it out; for weight decay, add a penalty to the loss"
            )


def _is_wrapper(tensor: Tensor) -> bool:
    """Whether it is of a subclass whose numbers are elsewhere, such as DTensor: no address leads to them."""
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _require_fitting(parameter: Tensor, gradient: Tensor) -> None:
    if _is_wrapper(gradient):
        raise UnsupportedGradient(
            f"a parameter of shape {tuple(parameter.shape)} has a gradient of type {type(gradient).__name__}; a "
            f"learned optimizer needs gradients that hold their numbers themselves. Give this parameter to another "
            f"optimizer"
        )
    if gradient.shape != parameter.shape:  # torch checks when the gradient is set, but `parameter.data` can be replaced
        raise UnsupportedGradient(
            f"a parameter of shape {tuple(parameter.shape)} has a gradient of shape {tuple(gradient.shape)}, from "
            f"before its data was replaced. Call optimizer.zero_grad() after such a change"
        )


def _name(group: Mapping[str, Any], position: int) -> str | None:
    """A parameter's name, where `named_parameters()` was given."""
    names = group.get("param_names") or ()
    return names[position] if position < len(names) else None


def _roles(parameter: Tensor) -> tuple[str, ...]:
    """What a parameter may be, by its shape."""
    return ("weight",) if parameter.dim() > 1 else ("bias", "vector")


def _signature(rule: Rules) -> str:
    """Kind, settings and the beginning of the SHA-256 of the weights: what `print(optimizer)` shows of a rule."""
    return f"{_described(written(rule.config()))} sha256:{hashlib.sha256(dumps(rule)).hexdigest()[:16]}"


def _described(config: Mapping[str, Any]) -> str:
    settings = config.get("rules", config)
    each = (
        f"{name}={_described(value) if isinstance(value, dict) else value}"
        for name, value in settings.items()
        if name != "kind"
    )
    return f"{config['kind']}({', '.join(each)})"
