"""Which trials of a sweep come next: a function of its spec and of its children, and of nothing else.

The Optuna study is not kept: it is made anew from the children's rows, in memory, with a sampler whose seed is a hash
of the sweep's seed and the trial's number. With `tpe` trial n looks at the trials 0 to n - parallel, which must have
ended; those after them it knows to be running, whether or not they still are. So neither the speed of the workers nor
what was killed, and how often, changes a value.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.jobs.sweeps.children import child, named
from app.store.sweeps import Trial
from models.errors import ModelsError
from models.spec import Choices, MetaTrainSpec, SweepSpec

if TYPE_CHECKING:
    import optuna

_DRAWS = 200
"""How often the values of a trial are drawn anew, where no training may have them or another trial has them."""
_STARTUP = 10
"""Trials that tpe draws at random before it looks at any, at most; fewer in a sweep of less than thirty."""


class NothingFits(ModelsError):
    """No drawn combination of values is one that a training may have."""


@dataclass(frozen=True)
class Proposal:
    """A trial that is to be made."""

    number: int
    rung: int
    values: Mapping[str, Any]
    training: MetaTrainSpec


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do now. total: how many children it has in the end, as far as is known; ended: whether there
    is nothing left to do or to wait for"""

    proposals: Sequence[Proposal]
    total: int
    ended: bool


def plan(spec: SweepSpec, trials: Sequence[Trial]) -> Plan:
    """trials: all children that there are, by number. Raises NothingFits."""
    room = spec.parallel - sum(not trial.ended for trial in trials)
    start, total = 0, 0
    before: list[Trial] = []
    for rung, (most, meta_steps) in enumerate(spec.rungs):
        chosen = sorted((trial for trial in before if trial.score is not None), key=lambda trial: trial.rank)
        size = most if rung == 0 else min(most, len(chosen))
        here = [trial for trial in trials if trial.rung == rung]
        total += size
        if len(here) < size:
            fresh = range(start + len(here), start + size)
            values = _drawn(spec, trials) if rung == 0 else ((each, chosen[each - start].values) for each in fresh)
            proposals = [
                Proposal(number, rung, found, child(spec, found, meta_steps))
                for number, found in itertools.islice(values, max(room, 0))
            ]
            later = sum(count for count, _ in spec.rungs[rung + 1 :])
            return Plan(proposals, total + later, ended=False)
        if not all(trial.ended for trial in here):
            return Plan([], total + sum(count for count, _ in spec.rungs[rung + 1 :]), ended=False)
        start, before = start + size, here
    return Plan([], total, ended=True)


def first_values(spec: SweepSpec) -> list[dict[str, Any]]:
    """Those of all trials of the first rung: of tpe, which draws from what earlier ones scored, as if at random. Raises
    NothingFits."""
    whole = spec.model_copy(update={"sampler": "random"}) if spec.sampler == "tpe" else spec
    return [values for _, values in _drawn(whole, [])]


def _drawn(spec: SweepSpec, trials: Sequence[Trial]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbers and values of the trials that the first rung lacks, as far as they can be known now."""
    taken = [trial.values for trial in trials]
    if spec.sampler == "grid":
        combinations = enumerate(itertools.islice(spec.grid, spec.trials))
        yield from ((n, named(spec.space, values)) for n, values in itertools.islice(combinations, len(trials), None))
        return
    for number in range(len(trials), spec.trials):
        known = max(0, number - spec.parallel + 1)
        if spec.sampler == "tpe" and not (known <= len(trials) and all(trial.ended for trial in trials[:known])):
            return
        told = spec.sampler == "tpe"
        history = [(values, trials[n] if n < known else None) for n, values in enumerate(taken)] if told else []
        values = _draw(spec, number, history, taken)
        taken.append(values)
        yield number, values


def _draw(
    spec: SweepSpec,
    number: int,
    history: Sequence[tuple[Mapping[str, Any], Trial | None]],
    taken: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The values of a trial: the first draw that no other trial has and that a training may have."""
    repeated: dict[str, Any] | None = None
    refusal = ""
    for values in itertools.islice(_suggested(spec, number, history), _DRAWS):
        try:
            child(spec, values, spec.rungs[0][1])
        except ValidationError as error:
            refusal = error.errors(include_url=False)[0]["msg"]
            continue
        if values not in taken:
            return values
        repeated = repeated or values
    if repeated is not None:
        return repeated
    raise NothingFits(f"{_DRAWS} drawn combinations of values fit no training, the last one because: {refusal}")


def _suggested(
    spec: SweepSpec, number: int, history: Sequence[tuple[Mapping[str, Any], Trial | None]]
) -> Iterator[dict[str, Any]]:
    """What Optuna's sampler suggests for a trial after this history, and what instead. A trial that is None in it is
    running."""
    import optuna  # here: nobody who sweeps nothing waits for it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    told = hashlib.sha256(f"sweep {spec.seed} {number}".encode()).digest()
    seed = int.from_bytes(told[:4], "big")
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if spec.sampler == "tpe":
        startup = min(_STARTUP, max(1, spec.trials // 3))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    distributions = {axis.name: _distribution(axis) for axis in spec.space}
    study.add_trials([_as_optuna_has_it(spec, distributions, values, trial) for values, trial in history])
    while True:
        asked = study.ask(distributions)
        yield {
            axis.name: axis.values[asked.params[axis.name]] if isinstance(axis, Choices) else asked.params[axis.name]
            for axis in spec.space
        }
        study.tell(asked, state=optuna.trial.TrialState.FAIL)


def _distribution(axis: Any) -> optuna.distributions.BaseDistribution:
    import optuna

    if isinstance(axis, Choices):
        return optuna.distributions.CategoricalDistribution(range(len(axis.values)))
    if axis.integer:
        return optuna.distributions.IntDistribution(axis.low, axis.high, log=axis.log)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _as_optuna_has_it(
    spec: SweepSpec,
    distributions: dict[str, optuna.distributions.BaseDistribution],
    values: Mapping[str, Any],
    trial: Trial | None,
) -> optuna.trial.FrozenTrial:
    import optuna

    states = optuna.trial.TrialState
    state = states.RUNNING if trial is None else states.FAIL if trial.score is None else states.COMPLETE
    params = {
        axis.name: axis.values.index(values[axis.name]) if isinstance(axis, Choices) else values[axis.name]
        for axis in spec.space
    }
    return optuna.create_trial(
        state=state,
        value=None if trial is None else trial.score,
        params=params,
        distributions=distributions,
    )
