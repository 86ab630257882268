"""What is trained and measured for each of the paper's experiments. All variants have a name here before any test.

Ratios of the paper are read off its figures: the learned optimizer's loss at the last step over that of the best
baseline. A row is `paper` for the paper's method, `ours` for a candidate of this project's best recipe, and `variant`
for what is compared beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from models.families import FAMILIES
from models.families.recipes import PAPER
from models.spec import Recipe

Row = Literal["paper", "ours", "variant"]
Json = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """A variant: what POST /jobs gets, but for the seed.

    name: in tables and figures
    recipe: laid over the family's recipe, or the paper's
    tasks: laid over the family's tasks
    as_written: whether that is the paper's recipe
    """

    name: str
    row: Row
    family: str
    recipe: Json = field(default_factory=dict)
    tasks: Json = field(default_factory=dict)
    as_written: bool = False


@dataclass(frozen=True)
class Panel:
    """Problems on which variants are measured.

    found: the paper's ratio, or what it says; least, aim: what this project asks of its own method
    wins: whether the aim is that each seed wins; area: what is asked of the area
    from_step: where its picture begins, as in the paper's
    """

    name: str
    family: str
    found: str = ""
    least: float | None = None
    aim: float | None = None
    wins: bool = False
    area: float | None = None
    tasks: Json = field(default_factory=dict)
    from_step: int = 0


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper, or one like it.

    figure: the paper's number; None where the paper has none
    note: what a reader has to know of the results
    against: pairs of variants that are compared with each other, besides with the baselines
    without: baselines that the evaluation of its families usually has, and this one does not
    """

    name: str
    title: str
    figure: int | None
    trainings: tuple[Training, ...]
    panels: tuple[Panel, ...]
    note: str = ""
    against: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()

    @property
    def families(self) -> tuple[str, ...]:
        """The families that it needs, each once."""
        return tuple(dict.fromkeys(each.family for each in (*self.trainings, *self.panels)))


METHOD = "the paper's method"


def paper(family: str, **recipe: Any) -> Training:
    """The paper's method as written: the LSTM, detached gradients, log-sign inputs, truncation."""
    return Training(METHOD, "paper", family, recipe, as_written=True)


def recipe_of_the_paper(family: str) -> Recipe:
    """The paper's recipe for a family with one rule: that of `models.families.recipes`, else the LSTM at the sizes of
    the family's own recipe. An experiment names the rules of parts."""
    if family in PAPER:
        return PAPER[family].model_copy(update={"rules": {}})
    own = FAMILIES[family].recipe
    sizes = ("meta_steps", "horizon", "unroll_steps", "tasks", "validation_tasks", "validation_interval")
    return Recipe(meta_learning_rate=0.01, **{name: getattr(own, name) for name in sizes})


def longer(family: str, longest: int) -> Json:
    """Trajectories of 60 to `longest` steps, on ReLU networks too."""
    return {
        "pool": 16,
        "horizon": longest,
        "shortest_horizon": 60,
        "validation_horizons": [100, longest],
        "validation_tasks": 16,
        "mixture": [{"family": family, "tasks": {"activation": "relu"}, "weight": 0.5}],
    }


_FOR_LONGER = {
    "rule": FAMILIES["quadratic"].recipe.rule.model_dump() | {"hidden_size": 64, "clock": "time+fraction"},
    "loss_weighting": "sum",
    "meta_steps": 40_000,
    "tasks": 64,
    "meta_learning_rate": 0.004,
    "validation_interval": 1000,
    "patience": None,
}
_STARTS = {"starts": 3, "start_steps": 100, "meta_steps": 800}  # seeds of MNIST plateau at different losses
_MNIST = (
    paper("mnist-mlp"),
    Training("ours, hyper", "ours", "mnist-mlp", longer("mnist-mlp", 200) | _STARTS),
    Training(
        "ours, mlp",
        "ours",
        "mnist-mlp",
        longer("mnist-mlp", 200) | _STARTS | {"rule": {"kind": "mlp"}, "meta_learning_rate": 0.001},
    ),
)
_MNIST_NOTE = (
    "Both candidates of ours are trained on sigmoid and ReLU networks, two to one, over 60 to 200 steps. What the "
    "family's own recipe makes, 100 steps of the sigmoid network alone, is in benchmarks/RESULTS.md (bench panels)."
)
_DIGITS = (
    paper("digits-mlp"),
    Training("ours", "ours", "digits-mlp"),
    Training(
        "ours, trained on ReLU too, to 1000 steps", "variant", "digits-mlp",
        longer("digits-mlp", 1000) | {"meta_steps": 800},
    ),
)  # fmt: skip
_TWO_LSTMS = {"rules": {"conv*": {"kind": "lstm"}}}  # the recipe's own rule moves the dense layers
_TWO_HYPERS = {"rules": {"conv*": FAMILIES["cifar10-conv"].recipe.rule.model_dump()}}
_TO_THE_END = {"patience": None}
_HELD_OUT_LABELS = {"labels": [5, 6, 7, 8, 9]}

EXPERIMENTS = (
    Experiment(
        "quadratics",
        "Quadratic functions (section 3.1)",
        4,
        (
            paper("quadratic"),
            Training("ours, hyper", "ours", "quadratic"),
            Training("ours, hyper, plain sum of losses", "ours", "quadratic", {"loss_weighting": "sum"}),
            Training("ours, hyper, for longer", "ours", "quadratic", _FOR_LONGER),
        ),
        (Panel("quadratics", "quadratic", "0.8", 0.5, 0.3),),
        note="A few nearly singular functions, on which every optimizer is slow, carry the mean: see the ratio of "
        "medians and the tasks won beside it. Two meta-losses were tried for ours, the sum of the losses and that "
        "of their roots. The variant for longer has a larger network that is told how long a run is, four times "
        "the tasks and 40,000 meta-steps; it was found on validation tasks, after earlier versions of this page "
        "had shown the test with the others. Baselines at rates that were tuned on validation tasks may diverge "
        "on single test tasks, which their medians do not show. L-BFGS is not among the baselines: it ends far "
        "below all of them, and below every rule (benchmarks/RESULTS.md).",
        without=("lbfgs",),
    ),
    Experiment(
        "mnist",
        "MNIST (section 3.2)",
        4,
        _MNIST,
        (
            Panel("MNIST, 100 steps", "mnist-mlp", "0.76", 0.95, 0.76),
            Panel("MNIST, 200 steps", "mnist-mlp-200-steps", "0.79", 1.0, 0.79, from_step=100),
        ),
        note=_MNIST_NOTE,
    ),
    Experiment(
        "mnist-transfers",
        "Networks that were never trained on (section 3.2)",
        5,
        _MNIST,
        (
            Panel("MNIST, 40 units", "mnist-mlp-40-units", "0.62", 0.96, 0.8),
            Panel("MNIST, 2 layers", "mnist-mlp-2-layers", "0.46", 0.92, 0.7),
            Panel("MNIST, ReLU", "mnist-mlp-relu", "fails", 1.0, 0.9),
        ),
        note=_MNIST_NOTE,
    ),
    Experiment(
        "mnist-architectures",
        "Final performance over sizes of the network (section 3.2)",
        6,
        _MNIST[:2],
        tuple(
            Panel(f"{layers} of {units}", "mnist-mlp", tasks={"hidden": [units] * layers})
            for layers in (1, 2)
            for units in (5, 10, 20, 40)
        ),
    ),
    Experiment(
        "cifar",
        "Convolutional networks on CIFAR-10 and on its subsets (section 3.3)",
        7,
        (
            paper("cifar10-conv", **_TWO_LSTMS),
            Training(f"{METHOD}, one LSTM", "variant", "cifar10-conv", as_written=True),
            Training("the paper's LSTM-sub", "variant", "cifar5-conv", _TWO_LSTMS, _HELD_OUT_LABELS, as_written=True),
            Training("ours", "ours", "cifar10-conv", _TO_THE_END),
            Training("ours, two rules", "ours", "cifar10-conv", _TWO_HYPERS | _TO_THE_END),
        ),
        (
            Panel("CIFAR-10", "cifar10-conv", "wins", wins=True),
            Panel("CIFAR-5", "cifar5-conv", "wins", wins=True, area=1.0),
            Panel("CIFAR-2", "cifar2-conv", "wins", wins=True, area=1.0),
        ),
        note="A fresh rule of ours is Muon at a constant rate; tuned Muon with schedules is among the baselines. A "
        "loss is that of a minibatch of 128, the same ones for all.",
        against=(
            (METHOD, f"{METHOD}, one LSTM"),
            ("the paper's LSTM-sub", METHOD),
            ("ours, two rules", "ours"),
        ),
    ),
    Experiment(
        "art",
        "Neural Art (section 3.4)",
        8,
        (paper("neural-art"), Training("ours", "ours", "neural-art")),
        (
            Panel("trained style, 64 x 64", "neural-art", "wins", 1.0, 0.8),
            Panel("new style", "neural-art-new-style", "good", None, 1.0),
            Panel("128 x 128", "neural-art-128", "good", None, 1.0),
        ),
        note="L-BFGS, which looks at differences of exact gradients, is among the baselines. Reached and missed are "
        "said of the median seed's ratio: where the verdicts are ties, nothing was won.",
    ),
    Experiment(
        "digits",
        "The same on 8x8 digits (not in the paper)",
        None,
        _DIGITS,
        (
            Panel("digits, 100 steps", "digits-mlp"),
            Panel("digits, 200 steps", "digits-mlp-200-steps"),
            Panel("digits, 40 units", "digits-mlp-40-units"),
            Panel("digits, 2 layers", "digits-mlp-2-layers"),
            Panel("digits, ReLU", "digits-mlp-relu"),
        ),
    ),
)
