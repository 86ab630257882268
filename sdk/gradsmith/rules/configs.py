"""The settings of every kind of rule, with their bounds and meanings. They are told here and nowhere else.

`gradsmith.rules.build` makes rules from these classes; the service derives its JSON schemas from them, and its
prediction of a job's memory from `costs()`. Needs no torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, cast, final

from gradsmith.errors import UnknownRule
from gradsmith.rules.kernels.sizes import HyperProgram, MLPProgram, Sizes
from gradsmith.rules.pieces import PIECES, Combination
from gradsmith.rules.shapes import side_numbers


@dataclass(frozen=True)
class Bounds:
    """Which values a setting may have. A number: `at_least` and `at_most` are allowed, `above` is not."""

    description: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """The value is one of these or several, joined by "+"."""
    initial: bool = False
    """The setting decides where a fresh rule starts and nothing else, so weights files do not carry it."""
    before: str | float | None = None
    """What a weights file from before there was the setting means. Files leave it out where it has this value, so they
    have the bytes, and optimizers the names, that they had."""


class Setting(NamedTuple):
    """One setting of a kind of rule: its name, its default, whose type is the setting's, and its bounds."""

    name: str
    default: int | float | str
    bounds: Bounds


@dataclass(frozen=True)
class Costs:
    """Numbers of memory that a rule takes for ONE coordinate; they have the width of the run, 4 or 8 bytes."""

    state: int
    """The rule's memory, from step to step."""
    step: int
    """Beside it, while torch makes a step."""
    largest: int
    """The largest single tensor among those."""
    autograd: int
    """What autograd keeps of one step, for a window's gradient."""
    replay: int
    """What torch's fused replay keeps of one step; 0 where there is none."""
    record: int
    """Numbers that one step leaves on a kernel's tape; 0 where no kernel has one."""
    sizes: Sizes | None
    """The compiled LSTM kernel's sizes; None where none can be made."""
    left: int = 0
    """Numbers that one step leaves for a window's gradient on the compiled kernel of rules that look at tensors; 0
    where there is none."""
    outputs: int = 0
    """How many more it leaves there where the weights learn from some coordinates alone."""
    whole: bool = False
    """A window's gradient cannot be computed a block of coordinates at a time."""


def _setting(default: Any, description: str = "", **bounds: Any) -> Any:
    return field(default=default, metadata={"bounds": Bounds(description, **bounds)})


@dataclass(frozen=True, kw_only=True)
class RuleConfig(ABC):
    """A kind of rule with its settings; making one checks them. Raises UnknownRule when one is out of its bounds."""

    kind: ClassVar[str]
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, default, bounds in self.settings():
            given = getattr(self, name)
            problem = _problem(given, default, bounds)
            if problem:
                raise UnknownRule(f"{name} of a rule of kind {self.kind!r} {problem}, not {given!r}")
            object.__setattr__(self, name, type(default)(given))  # 7 for a real setting becomes 7.0

    @classmethod
    def settings(cls) -> Iterator[Setting]:
        """Every setting, in the order in which it is written."""
        for each in fields(cls):
            yield Setting(each.name, cast(int | float | str, each.default), each.metadata["bounds"])

    def plain(self) -> dict[str, object]:
        """The kind and the settings without the initial ones, as JSON values: what a weights file says."""
        settings = {name: getattr(self, name) for name, _, bounds in self.settings() if not bounds.initial}
        return {"kind": self.kind, **settings}

    @property
    def knows_steps(self) -> bool:
        """Whether it asks how many steps a run is going to have."""
        return False

    @property
    def _knows_in_words(self) -> str:
        return ", knows how many steps a run has" if self.knows_steps else ""

    @property
    def most_coordinates(self) -> int | None:
        """How many coordinates of one task such a rule moves at most; None: any number."""
        return None

    @property
    def exact_kernels(self) -> tuple[str, ...]:
        """The kernels that differentiate it with second derivatives; torch does for every rule."""
        return ()

    @abstractmethod
    def in_words(self) -> str:
        """One line for a card."""

    def costs_for(self, shapes: Sequence[Sequence[int]]) -> Costs:
        """The memory that such a rule takes for tensors of these shapes, for one coordinate in the mean."""
        return self.costs(len(shapes) / max(1, sum(map(math.prod, shapes))))

    @abstractmethod
    def costs(self, tensors: float = 0.0) -> Costs:
        """The memory that such a rule takes. A wrong answer gets a job refused, or its worker killed.

        tensors: how many tensors there are for one coordinate; 0 where they are large
        """


def _problem(given: object, default: object, bounds: Bounds) -> str | None:
    """What is wrong with a value, in words; None where nothing is."""
    if bounds.choices:
        return None if given in bounds.choices else f"must be one of {', '.join(bounds.choices)}"
    if bounds.names:
        named = given.split("+") if isinstance(given, str) else []
        if named and len(set(named)) == len(named) and set(named) <= set(bounds.names):
            return None
        return f"must be some of {', '.join(bounds.names)}, each once and joined by +"
    kinds, noun = ((int,), "an integer") if isinstance(default, int) else ((int, float), "a number")
    within = isinstance(given, kinds) and not isinstance(given, bool)
    within = within and (bounds.at_least is None or given >= bounds.at_least)  # type: ignore[operator]
    within = within and (bounds.above is None or given > bounds.above)  # type: ignore[operator]
    within = within and (bounds.at_most is None or given <= bounds.at_most)  # type: ignore[operator]
    if within:
        return None
    lowest = f"above {bounds.above:g}" if bounds.above is not None else f"from {bounds.at_least:g}"
    return f"must be {noun} {lowest} to {bounds.at_most:g}"


_OUTPUT_SCALE = "theta changes by this much per unit of output."
_FRESH_ADAM = "The learning rate of the Adam that a fresh rule is; what it learns multiplies it."


ORTHOGONALIZED = 24
"""Numbers that the orthogonalization of a square matrix leaves of a coordinate for its way back; others leave fewer."""


@final
@dataclass(frozen=True, kw_only=True)
class HyperConfig(RuleConfig):
    """A small network for each tensor, on its scale, its alignments and time: it says how all its coordinates move."""

    kind: ClassVar[str] = "hyper"

    hidden_size: int = _setting(24, "Units in each hidden layer.", at_least=1, at_most=256)
    layers: int = _setting(2, "Hidden layers.", at_least=1, at_most=4)
    direction: str = _setting(
        "adam",
        "What matrices move along: combinations of Adam's directions, as all other tensors do, or Muon's direction, "
        "which is a combination of the gradient and its momenta, orthogonalized.",
        choices=("adam", "muon"),
        before="adam",
    )
    clock: str = _setting(
        "time",
        "What it knows of time: how many steps there were, or also which share of the planned ones that is. The latter "
        "asks for LearnedOptimizer(..., steps=N).",
        choices=("time", "time+fraction"),
        before="time",
    )
    output_scale: float = _setting(
        0.03,
        "The learning rate of the Adam, or of the Muon, that a fresh rule is; what it learns multiplies it.",
        above=0,
        at_most=100,
    )

    @property
    def knows_steps(self) -> bool:
        return self.clock == "time+fraction"

    @property
    def program(self) -> HyperProgram:
        """The compiled kernel."""
        return HyperProgram(fraction=self.knows_steps, muon=self.direction == "muon")

    @property
    def exact_kernels(self) -> tuple[str, ...]:
        return ("native",)

    def in_words(self) -> str:
        muons = ", Muon's direction" if self.direction == "muon" else ""
        return f"hyper, {self.layers} x {self.hidden_size}, once per tensor{muons}{self._knows_in_words}"

    def costs(self, tensors: float = 0.0) -> Costs:
        """Three means, one of squares, the last update; for a tensor, six numbers, the planned steps, and what its
        network takes. What autograd keeps was counted with its hooks."""
        H, L, more = self.hidden_size, self.layers, ORTHOGONALIZED if self.direction == "muon" else 0
        return Costs(
            state=math.ceil(5 + (6 + self.knows_steps) * tensors),
            step=math.ceil(24 + more // 2 + (2 * H + 60) * tensors),
            largest=math.ceil(4 + H * tensors),
            autograd=math.ceil(8 + more + (2 * H * L + 42) * tensors),
            replay=0,
            record=0,
            sizes=None,
            left=math.ceil(5 + (H * L + 46) * tensors),
            whole=True,
        )


@final
@dataclass(frozen=True, kw_only=True)
class LSTMConfig(RuleConfig):
    """A coordinatewise LSTM (Andrychowicz et al. 2016, section 2.1)."""

    kind: ClassVar[str] = "lstm"

    hidden_size: int = _setting(20, "Units in each layer.", at_least=1, at_most=256)
    layers: int = _setting(2, at_least=1, at_most=4)
    input: str = _setting(
        "log_sign",
        "How the gradient enters: (log|g|/p, sign g) as in appendix A (log_sign), as it is (raw), or by other named "
        'inputs, several of them joined by "+".',
        names=tuple(PIECES),
    )
    head: str = _setting(
        "linear",
        "How an output becomes an update: times output_scale, its tanh times output_scale, or a coefficient for each "
        "direction among the inputs and the logarithm of a length.",
        choices=("linear", "tanh", "direction_magnitude"),
        before="linear",
    )
    p: float = _setting(10.0, "log_sign treats |g| >= e^-p by its logarithm.", above=0, at_most=50)
    output_scale: float = _setting(0.1, _OUTPUT_SCALE, above=0, at_most=100)
    forget_bias: float = _setting(
        1.0,
        "Added to the forget gates of a fresh rule, so that it remembers from the first meta-step on.",
        at_least=-20,
        at_most=20,
        initial=True,
    )
    averaging: int = _setting(
        0,
        "Global averaging cells: so many cells of each layer put out the mean of their activation over all coordinates "
        "of the task. PyTorch computes such a rule, no kernel.",
        at_least=0,
        at_most=256,
        before=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_cells(self.kind, self.averaging, self.hidden_size)
        if self.head == "direction_magnitude":
            _require_directions(self.kind, self.input)

    @property
    def knows_steps(self) -> bool:
        return Combination.of(self.input).planned

    def in_words(self) -> str:
        head = "" if self.head == "linear" else f", {self.head} head"
        cells = _AVERAGING.format(self.averaging) if self.averaging else ""
        words = f"lstm, {self.layers} x {self.hidden_size}{cells}, {self.input} input{head}"
        return words + self._knows_in_words

    @property
    def as_published(self) -> bool:
        """Whether its inputs, cells and head are those of the paper's LSTM, which kernels and the fast replay know."""
        return self.input in ("log_sign", "raw") and self.head == "linear" and not self.averaging

    def costs(self, tensors: float = 0.0) -> Costs:
        """States h and c of each layer. What autograd keeps was measured; the replay's numbers are its buffers'."""
        H, L, own = self.hidden_size, self.layers, Combination.of(self.input)
        more = 0 if self.as_published else 4 * own.width + 2 * own.directions + 10
        more += 2 * H * L if self.averaging else 0  # hidden states once more, with their means, and with those at rest
        return Costs(
            state=2 * H * L + own.state + _remembered(own, tensors),
            step=2 * H * (L - 1) + 8 * H + 2 * more,
            largest=max(H, own.width),
            autograd=25 * H * L + more,
            replay=own.width + (L - 1) * H + L * (7 * H + 1) if self.as_published else 0,
            record=5 * H * L if self.as_published else 0,
            sizes=Sizes.fitting(H, L, self.input) if self.as_published else None,
            whole=own.of_tensors or self.averaging > 0,
        )


@final
@dataclass(frozen=True, kw_only=True)
class MLPConfig(RuleConfig):
    """A small network for each coordinate, on momenta of the gradient, scales and time: where to go, and how far."""

    kind: ClassVar[str] = "mlp"

    hidden_size: int = _setting(24, "Units in each hidden layer.", at_least=1, at_most=256)
    layers: int = _setting(2, "Hidden layers.", at_least=1, at_most=4)
    input: str = _setting(
        "momenta+scales+tensor_scale+alignment+time",
        'Named inputs, joined by "+". Those that name a tensor see where tensors end; the others see one coordinate.',
        names=tuple(PIECES),
        before="momenta",
    )
    p: float = _setting(10.0, "log_sign treats |g| >= e^-p by its logarithm.", above=0, at_most=50, before=10.0)
    output_scale: float = _setting(0.03, _FRESH_ADAM, above=0, at_most=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_directions(self.kind, self.input)

    @property
    def knows_steps(self) -> bool:
        return Combination.of(self.input).planned

    @property
    def program(self) -> MLPProgram | None:
        """The compiled kernel; None where none can be made."""
        return MLPProgram.fitting(self.hidden_size, self.layers, self.input)

    @property
    def exact_kernels(self) -> tuple[str, ...]:
        return ("native",) if self.program else ()

    def in_words(self) -> str:
        return f"mlp, {self.layers} x {self.hidden_size}, {self.input} input{self._knows_in_words}"

    def costs(self, tensors: float = 0.0) -> Costs:
        """Running means and what else its inputs remember. What autograd keeps was counted with its hooks."""
        H, L, own = self.hidden_size, self.layers, Combination.of(self.input)
        return Costs(
            state=own.state + _remembered(own, tensors),
            step=2 * H + 4 * own.width + 14,
            largest=max(H, own.width),
            autograd=2 * H * L + own.width + 2 * own.directions + 4,
            replay=0,
            record=0,
            sizes=None,
            left=self.program.left(tensors) if self.program else 0,
            outputs=self.program.outputs(tensors) if self.program else 0,
            whole=own.of_tensors,
        )


def _remembered(own: Combination, tensors: float) -> int:
    return math.ceil(own.numbers * tensors) if own.of_tensors else 0


def _require_cells(kind: str, averaging: int, hidden_size: int) -> None:
    if averaging > hidden_size:
        raise UnknownRule(
            f"averaging of a rule of kind {kind!r} is {averaging}, and a layer has hidden_size {hidden_size} cells; "
            f"send {hidden_size} at most"
        )


_AVERAGING = ", {} of them averaging"


def _require_directions(kind: str, given: str) -> None:
    if not Combination.of(given).directions:
        raise UnknownRule(
            f"a rule of kind {kind!r} with the input {given!r} has no direction to go along; add one of "
            f"{', '.join(name for name, piece in PIECES.items() if piece.directions)}"
        )


@final
@dataclass(frozen=True, kw_only=True)
class NTMBFGSConfig(RuleConfig):
    """An LSTM with averaging cells for each coordinate, whose heads read and write a matrix that all coordinates of a
    task share: it can learn methods like BFGS (Andrychowicz et al. 2016, appendix). For small problems."""

    kind: ClassVar[str] = "ntm_bfgs"

    hidden_size: int = _setting(20, "Units in each layer.", at_least=1, at_most=256)
    layers: int = _setting(2, at_least=1, at_most=4)
    averaging: int = _setting(
        5,
        "Global averaging cells: so many cells of each layer put out the mean of their activation over all coordinates "
        "of the task.",
        at_least=0,
        at_most=256,
    )
    read_heads: int = _setting(1, "Vectors that the matrix is multiplied with at each step.", at_least=1, at_most=8)
    write_heads: int = _setting(3, "Outer products that are added to the matrix at each step.", at_least=1, at_most=8)
    memory_size: int = _setting(
        64, "Rows and columns of the matrix: a task may have so many coordinates, and no more.", at_least=1, at_most=256
    )
    input: str = _setting(
        "log_sign",
        "How the gradient enters: (log|g|/p, sign g) as in appendix A (log_sign), or as it is (raw).",
        choices=("log_sign", "raw"),
    )
    p: float = _setting(10.0, "log_sign treats |g| >= e^-p by its logarithm.", above=0, at_most=50)
    output_scale: float = _setting(0.1, _OUTPUT_SCALE, above=0, at_most=100)
    forget_bias: float = _setting(
        1.0,
        "Added to the forget gates of a fresh rule, so that it remembers from the first meta-step on.",
        at_least=-20,
        at_most=20,
        initial=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_cells(self.kind, self.averaging, self.hidden_size)

    @property
    def most_coordinates(self) -> int:
        return self.memory_size

    def in_words(self) -> str:
        cells = _AVERAGING.format(self.averaging) if self.averaging else ""
        return (
            f"ntm_bfgs, {self.layers} x {self.hidden_size}{cells}, {self.input} input, memory {self.memory_size} x "
            f"{self.memory_size}, {self.read_heads} read and {self.write_heads} write heads"
        )

    def costs(self, tensors: float = 0.0) -> Costs:  # noqa: ARG002
        """States h and c of each layer, a row of the matrix, and a place. What autograd keeps is what it keeps of an
        LSTM, and of the matrix twice what its hooks count."""
        H, L, S, heads = self.hidden_size, self.layers, self.memory_size, self.read_heads + self.write_heads
        return Costs(
            state=2 * H * L + S + 1,
            step=2 * H * (L - 1) + 8 * H + 4 * S + 8 * heads,
            largest=max(H, S),
            autograd=27 * H * L + 2 * S + 12 * heads + 20,
            replay=0,
            record=0,
            sizes=None,
            whole=True,
        )


LBFGS_PAIRS = 10
"""How many pairs of moves and changes of the gradient L-BFGS keeps."""

TUNED_NUMBERS = {
    "sgd": 0,
    "nag": 1,
    "rmsprop": 1,
    "adam": 2,
    "adamw": 2,
    "adagrad": 1,
    "muon": 2,
    "soap": 2,
    "lbfgs": 2 * LBFGS_PAIRS + 2,
}
"""The optimizers that a tuned rule may be, and how many numbers of each coordinate they remember."""


@final
@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(RuleConfig):
    """A learned learning rate and momentum at each step, on a hand-made direction: no network."""

    kind: ClassVar[str] = "schedule"

    direction: str = _setting(
        "adam",
        "What is scaled: Adam's direction, NAG's, or Muon's, which is the orthogonalized momentum of matrices and, "
        "with curves of its own, Adam's direction of other tensors.",
        choices=("adam", "nag", "muon"),
    )
    over: str = _setting(
        "time",
        "Where the knots lie: over the logarithm of the number of steps done, or over their share of the planned ones.",
        choices=("time", "fraction"),
    )
    knots: int = _setting(32, "Points between which the curves are straight.", at_least=2, at_most=1000)
    output_scale: float = _setting(
        0.03, "The learning rate of a fresh rule; what it learns multiplies it.", above=0, at_most=100
    )

    @property
    def knows_steps(self) -> bool:
        return self.over == "fraction"

    def in_words(self) -> str:
        return f"schedule, {self.knots} knots over {self.over}, {self.direction}{self._knows_in_words}"

    def costs(self, tensors: float = 0.0) -> Costs:
        """Momentum, and for Adam and Muon the running squares; three numbers and the knots' weights for a tensor. Muon
        also takes, and leaves to autograd, what the iteration makes of a matrix, at most when it is square."""
        curves, more = (5, ORTHOGONALIZED) if self.direction == "muon" else (2, 0)
        return Costs(
            state=math.ceil((1 if self.direction == "nag" else 2) + 3 * tensors),
            step=math.ceil(12 + more // 2 + (4 * self.knots + 6 * curves) * tensors),
            largest=1,
            autograd=math.ceil(8 + 2 * curves + more + (3 * self.knots + 6 * curves) * tensors),
            replay=0,
            record=0,
            sizes=None,
            whole=True,
        )


@final
@dataclass(frozen=True, kw_only=True)
class TunedConfig(RuleConfig):
    """A hand-made optimizer with its best learning rate and schedule: one of torch.optim's, Muon, SOAP or L-BFGS. It
    learns nothing more."""

    kind: ClassVar[str] = "tuned"
    learns: ClassVar[bool] = False

    optimizer: str = _setting("adam", choices=tuple(TUNED_NUMBERS))
    learning_rate: float = _setting(0.001, "That of the first step.", above=0, at_most=1e6)
    schedule: str = _setting(
        "constant", "How the rate falls to zero over the planned steps.", choices=("constant", "linear", "cosine")
    )

    @property
    def knows_steps(self) -> bool:
        return self.schedule != "constant"

    def in_words(self) -> str:
        known = self._knows_in_words
        return f"tuned {self.optimizer}, learning rate {self.learning_rate:.3g}, {self.schedule}{known}"

    def costs(self, tensors: float = 0.0) -> Costs:
        """What the optimizer remembers; two numbers for a tensor. A step has most of it twice."""
        remembered = TUNED_NUMBERS[self.optimizer]
        return Costs(
            state=math.ceil(remembered + 2 * tensors),
            step=math.ceil(10 + (remembered if remembered > 2 else 0) + 10 * tensors),
            largest=1,
            autograd=0,
            replay=0,
            record=0,
            sizes=None,
            whole=True,
        )

    def costs_for(self, shapes: Sequence[Sequence[int]]) -> Costs:
        """SOAP also remembers two square matrices for every side, and makes both anew in a step."""
        found = super().costs_for(shapes)
        if self.optimizer != "soap":
            return found
        sides = 2 * math.ceil(sum(map(side_numbers, shapes)) / max(1, sum(map(math.prod, shapes))))
        return replace(found, state=found.state + sides, step=found.step + 2 * sides)


CONFIGS: dict[str, type[RuleConfig]] = {
    config.kind: config for config in (HyperConfig, LSTMConfig, MLPConfig, NTMBFGSConfig, ScheduleConfig, TunedConfig)
}
"""Every kind of rule, by its name."""


def configured(config: Mapping[str, Any]) -> RuleConfig:
    """The settings that a mapping such as `{"kind": "lstm", "hidden_size": 20}` names; the others have their defaults.

    Raises UnknownRule for a kind or a setting that this version does not know, and for a value out of its bounds.
    """
    settings = dict(config)
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise UnknownRule(
            f"unknown kind of rule {kind!r}; this version of gradsmith knows {', '.join(sorted(CONFIGS))}. "
            "A newer one may know it: update your checkout of Gradsmith and run pip install './sdk[torch]' in it"
        )
    try:
        return CONFIGS[kind](**settings)
    except TypeError as error:
        raise UnknownRule(f"a rule of kind {kind!r} cannot be built from {settings!r}: {error}") from error


def written(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as weights files have it: without what means the same when it is left out."""
    return _each_rule(config, lambda rule, early: {name: v for name, v in rule.items() if early.get(name) != v})


def read_back(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that a weights file has, with what it left out."""
    return _each_rule(config, lambda rule, early: {**early, **rule})


def _each_rule(
    config: Mapping[str, Any], change: Callable[[Mapping[str, Any], dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    rules = config.get("rules")
    if isinstance(rules, Mapping) and all(isinstance(rule, Mapping) for rule in rules.values()):
        return {**config, "rules": {pattern: _each_rule(rule, change) for pattern, rule in rules.items()}}
    known = CONFIGS.get(str(config.get("kind")))
    early = {name: bounds.before for name, _, bounds in known.settings() if bounds.before is not None} if known else {}
    return change(config, early)
