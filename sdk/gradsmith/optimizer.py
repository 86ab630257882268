"""LearnedOptimizer: a trained rule as an ordinary `torch.optim.Optimizer`."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from gradsmith.errors import StateMismatch, UnknownSource, UnsupportedGradient, UnsupportedParameter
from gradsmith.rules import Rule, State  # before torch itself: it says how to install torch when that is missing
from gradsmith.rules.weights import dumps, load, loads

import torch  # isort: skip
from torch import Tensor  # isort: skip
from torch.optim.optimizer import Optimizer, ParamsT  # isort: skip

if TYPE_CHECKING:
    from gradsmith.client import Client

Source = Rule | str | PathLike[str] | bytes
"""Where a rule comes from: the object itself, a weights file or its bytes, or a reference such as "quadratic@best"."""

_REFERENCE = re.compile(r"opt_[0-9a-zA-Z]+|[a-z0-9][a-z0-9._-]*@[a-zA-Z0-9._-]+")
_MEMORY = "memory"


class LearnedOptimizer(Optimizer):
    """Train a model with a learned rule: `theta <- theta + rule(gradient)`.

    params: parameters or parameter groups, as for every torch optimizer. The parameters of a group that have a
        gradient are laid on one flat coordinate axis and the rule runs once over it. They may be float16,
        bfloat16, float32 (the rule computes in float32) or float64 (in float64), on any device
    rule: what to train with. A `Rule`; a weights file (a path, or the file's bytes); or the reference of an
        optimizer in the service: "quadratic@best", "quadratic@3", "opt_0190..."
    client: the `gradsmith.Client` that references are fetched with; default: one for GRADSMITH_URL

    There is no learning rate: the rule has learned its own. A gradient that is NaN or infinite reaches the rule's
    memory and stays there, as in torch's own optimizers with momentum; check the loss if that can happen.

    Raises WeightsError for an unusable file, UnknownSource for a text that names nothing, UnsupportedParameter for
    integer, complex or sparse parameters, and what `Client.optimizers.pull` raises for a reference.
    """

    def __init__(self, params: ParamsT, rule: Source, *, client: Client | None = None) -> None:
        self._rule = copy.deepcopy(rule_from(rule, client)).requires_grad_(False)
        self._adopted: dict[tuple[torch.device, torch.dtype], Rule] = {}
        self._flat: dict[tuple[int, torch.device, torch.dtype], _Flat] = {}
        # In every group: `print(optimizer)` shows it, and a state dict says which rule its memory belongs to.
        super().__init__(params, {"rule": _signature(self._rule)})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters in mid-training; their memory begins at zero. Raises UnsupportedParameter."""
        super().add_param_group(param_group)
        for number, parameter in enumerate(self.param_groups[-1]["params"]):
            kind = str(parameter.dtype).removeprefix("torch.")
            if not parameter.is_floating_point() or parameter.layout != torch.strided:
                self.param_groups.pop()
                raise UnsupportedParameter(
                    f"parameter {number} of the group has dtype {kind} and layout {parameter.layout}; a learned "
                    f"optimizer trains dense real floating-point parameters. Leave it out, or give it to another "
                    f"optimizer"
                )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient; `closure` re-evaluates the loss and returns it.

        Raises UnsupportedGradient for sparse gradients, before anything has moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        buckets = {
            (number, device, dtype): parameters
            for number, group in enumerate(self.param_groups)
            for (device, dtype), parameters in _buckets(group["params"]).items()
        }
        for key, parameters in buckets.items():
            self._advance(key, parameters)
        return loss

    def _advance(self, key: tuple[int, torch.device, torch.dtype], parameters: list[Tensor]) -> None:
        _, device, dtype = key
        sizes = [parameter.numel() for parameter in parameters]
        gradient = torch.cat([_gradient(parameter).reshape(-1).to(dtype) for parameter in parameters])
        rule = self._rule_on(device, dtype)
        update, memory = rule(gradient, self._memory_of(key, parameters, rule))
        views = list(zip(*(tensor.split(sizes) for tensor in memory), strict=True)) or [()] * len(sizes)
        for parameter, change, view in zip(parameters, update.split(sizes), views, strict=True):
            parameter.add_(change.view(parameter.shape).to(parameter.dtype))
            self.state[parameter][_MEMORY] = view
        self._flat[key] = _Flat(parameters, views, memory)

    def _memory_of(self, key: tuple[int, torch.device, torch.dtype], parameters: list[Tensor], rule: Rule) -> State:
        """The bucket's memory on one axis: what the last step left, or, after a change, put together anew."""
        flat = self._flat.get(key)
        if flat is not None and flat.still_holds(parameters, self.state):
            return flat.memory
        _, device, dtype = key
        pieces = [
            self.state[parameter].get(_MEMORY) or rule.initial_state(parameter.numel(), dtype=dtype, device=device)
            for parameter in parameters
        ]
        # Joined along the long axis of the transposed tensors, which is how rules keep them.
        return tuple(torch.cat([piece.t() for piece in column], dim=1).t() for column in zip(*pieces, strict=True))

    def _rule_on(self, device: torch.device, dtype: torch.dtype) -> Rule:
        if (device, dtype) not in self._adopted:
            self._adopted[device, dtype] = copy.deepcopy(self._rule).to(device=device, dtype=dtype)
        return self._adopted[device, dtype]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`, bit for bit.

        Raises StateMismatch when it was saved with another rule or for parameters of other sizes.
        """
        for group in state_dict["param_groups"]:
            if group.get("rule") != _signature(self._rule):
                raise StateMismatch(
                    f"this state dict was saved with the rule {group.get('rule')!r}; this optimizer runs "
                    f"{_signature(self._rule)!r}. Build LearnedOptimizer with the same weights (pin a version, such "
                    f"as quadratic@3, instead of an alias that moves), or start with fresh state"
                )
        mine = [parameter for group in self.param_groups for parameter in group["params"]]
        theirs = [index for group in state_dict["param_groups"] for index in group["params"]]
        memories = [state_dict["state"].get(index, {}).get(_MEMORY) for index in theirs]
        if len(mine) == len(theirs):  # otherwise torch's own message says it best
            for number, (parameter, memory) in enumerate(zip(mine, memories, strict=True)):
                self._require_fit(number, parameter, memory)
        super().load_state_dict(state_dict)
        self._flat.clear()
        for parameter, memory in zip(mine, memories, strict=True):
            if memory is not None:
                # torch casts state to the parameter's dtype, which would round the memory of half precision.
                dtype = _compute_dtype(parameter)
                self.state[parameter][_MEMORY] = tuple(tensor.to(parameter.device, dtype) for tensor in memory)

    def _require_fit(self, number: int, parameter: Tensor, memory: State | None) -> None:
        if memory is None:
            return
        expected = [tuple(tensor.shape) for tensor in self._rule.initial_state(parameter.numel(), device="meta")]
        found = [tuple(tensor.shape) for tensor in memory]
        if found != expected:
            raise StateMismatch(
                f"parameter {number} has {parameter.numel()} coordinates and needs memory of shapes {expected}; the "
                f"state dict has {found}. It belongs to another model"
            )

    def __getstate__(self) -> dict[str, Any]:  # torch's own keeps three attributes and would lose the rule
        return {**super().__getstate__(), "_rule": self._rule}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._adopted = {}
        self._flat = {}


class _Flat:
    """What a step leaves behind: the memory on one axis, and the views of it that the optimizer's state holds."""

    def __init__(self, parameters: Sequence[Tensor], views: Sequence[State], memory: State) -> None:
        self.parameters = parameters
        self.views = views
        self.memory = memory

    def still_holds(self, parameters: Sequence[Tensor], state: dict[Tensor, Any]) -> bool:
        """True when the same parameters come again and nobody has replaced their state meanwhile."""
        return len(parameters) == len(self.parameters) and all(
            now is then and state[now].get(_MEMORY) is view
            for now, then, view in zip(parameters, self.parameters, self.views, strict=True)
        )


def rule_from(source: Source, client: Client | None = None) -> Rule:
    """The rule that `source` names; see `LearnedOptimizer`."""
    if isinstance(source, Rule):
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


def _compute_dtype(parameter: Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _buckets(parameters: Iterable[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[Tensor]]:
    """Parameters with a gradient, by where and in what precision the rule runs for them."""
    buckets: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            _gradient(parameter)
            buckets.setdefault((parameter.device, _compute_dtype(parameter)), []).append(parameter)
    return buckets


def _gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None or gradient.layout != torch.strided:
        raise UnsupportedGradient(
            f"a parameter of shape {tuple(parameter.shape)} has a gradient of layout "
            f"{gradient.layout if gradient is not None else None}; a learned optimizer needs dense gradients. "
            f"Use nn.Embedding(sparse=False), or give this parameter to another optimizer"
        )
    return gradient


def _signature(rule: Rule) -> str:
    """Kind, settings and the beginning of the SHA-256 of the weights: what `print(optimizer)` shows of a rule."""
    config = rule.config()
    settings = ", ".join(f"{name}={value}" for name, value in config.items() if name != "kind")
    return f"{config['kind']}({settings}) sha256:{hashlib.sha256(dumps(rule)).hexdigest()[:16]}"
