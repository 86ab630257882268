"""The runs of baselines, which do not depend on what is measured: computed once, kept, and the same bits afterwards.

What a run depends on is its key: the tasks, the sample, the horizon, the baseline and its settings, and what computes
it. An evaluation is handed a store that holds runs by such keys; it computes what the store does not have, and puts it
there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from models.baselines import TUNED
from models.baselines.base import Baseline
from models.curves import Curves, looks
from models.film import Pictures, pictured_steps
from models.halving import tune_by_halving
from models.measured import MeasuringProgress, Runs, Stopwatch
from models.rollout import Contender, Sample, run
from models.spec import BaselineName, EvaluateSpec, PreviewSpec
from models.tasks.base import Family, HeldOut
from models.tuning import GridPoint, Tuned, Tuning, tune
from models.tuning_budget import runs_of

FORMAT = 2
"""Counts changes after which equal keys would give other runs: of tasks, of rollouts, of the search."""

Phase = Literal["tuning", "test", "targets"]
"""What a run is for: to tune, to be compared, or to set the targets."""

T = TypeVar("T")
_GIVEN = "given "  # before the names of given pictures in a stored run


@dataclass(frozen=True)
class Stored:
    """Bytes that were put under a key, and the job that computed them."""

    content: bytes
    job: str


class BaselineStore(Protocol):
    """Where runs of baselines are kept between evaluations."""

    def get(self, key: str) -> Stored | None:
        """What was put under this key; None where nothing was, or it is damaged."""

    def put(self, key: str, baseline: str, content: bytes) -> None:
        """Keep it. baseline: whose run it is, for people"""


class BaselineRuns:
    """The runs of baselines that one evaluation or preview needs.

    store: None computes everything
    gradients: evaluations of a task's gradient that were computed here, by split
    stored: what was found in the store: the job that had computed it, by phase and baseline
    watch: the seconds of what was computed here, by phase and baseline
    """

    def __init__(
        self,
        spec: EvaluateSpec | PreviewSpec,
        dtype: torch.dtype,
        device: torch.device,
        runs: Runs,
        store: BaselineStore | None = None,
    ) -> None:
        self.gradients = {"tuning": 0, "test": 0}
        self.stored: dict[Phase, dict[str, str]] = {"tuning": {}, "test": {}, "targets": {}}
        self.watch = Stopwatch()
        self._spec = spec
        self._plan = spec.evaluation
        self._dtype = dtype
        self._device = device
        self._runs = runs
        self._store = store
        self._looks = looks(spec.evaluation.horizon) if spec.evaluation.on == "held_out" else ()

    def tuned(self, name: BaselineName, family: Family, sample: Sample) -> Generator[MeasuringProgress, None, Tuning]:
        """The sweep of a baseline of the tuned tier. family: opened for tuning"""
        plan, baseline = self._plan, TUNED[name]
        search = tune if plan.search == "full" else tune_by_halving
        sweep = search(
            *(baseline, family, sample, plan.horizon, plan.schedules),
            on=plan.on,
            dtype=self._dtype,
            device=self._device,
        )
        key = self._key(baseline, sample, schedules=plan.schedules, search=plan.search)

        def loaded(content: bytes) -> Tuning:
            return Tuning(baseline, plan.horizon, tuple(GridPoint(**point) for point in json.loads(content)))

        def dumped(tuning: Tuning) -> bytes:
            return json.dumps([asdict(point) for point in tuning.points]).encode()

        work = self._runs.ticking(sweep, f"tuning {name}'s learning rate")
        computed = self._counted(work, "tuning", lambda tuning: sum(point.tasks for point in tuning.points))
        found = yield from self._kept("tuning", name, key, computed, loaded, dumped)
        self._runs.done += runs_of(plan.schedules) if name in self.stored["tuning"] else 0
        return found

    def curves(
        self,
        baseline: Baseline,
        contender: Contender,
        family: Family,
        sample: Sample,
        phase: Phase,
        message: str,
        *,
        held_out: bool = False,
        pictures: bool = False,
    ) -> Generator[MeasuringProgress, None, Curves]:
        """A run of a baseline."""
        horizon = self._plan.horizon
        steps = run(
            *(contender, family, sample, horizon),
            dtype=self._dtype,
            device=self._device,
            held_out=held_out,
            looks=self._looks,
            pictures=pictures,
        )
        settings: dict[str, Any] = {"held_out": held_out} | ({"pictures": pictured_steps(horizon)} if pictures else {})
        if isinstance(contender, Tuned):
            settings |= {"learning_rate": contender.learning_rate.hex(), "schedule": contender.schedule}
        key = self._key(baseline, sample, **settings)
        computed = self._counted(self._runs.ticking(steps, message), phase, lambda _: sample.tasks)
        found = yield from self._kept(phase, baseline.name, key, computed, self._loaded, _dumped)
        self._runs.done += 1
        return found

    def _kept(
        self,
        phase: Phase,
        name: str,
        key: str,
        computed: Generator[MeasuringProgress, None, T],
        loaded: Callable[[bytes], T],
        dumped: Callable[[T], bytes],
    ) -> Generator[MeasuringProgress, None, T]:
        """What the store has, else what is computed, which then goes there."""
        stored = None if self._store is None else self._store.get(key)
        if stored is not None:
            computed.close()
            self.stored[phase][name] = stored.job
            yield self._runs.so_far(f"{name}, {phase}: stored, by job {stored.job}")
            return loaded(stored.content)
        found = yield from self.watch.timing(phase, name, computed)
        if self._store is not None:
            self._store.put(key, name, dumped(found))
        return found

    def _counted(
        self, work: Generator[MeasuringProgress, None, T], phase: Phase, tasks: Callable[[T], int]
    ) -> Generator[MeasuringProgress, None, T]:
        """tasks: how many tasks were run on, from what the work gave"""
        found = yield from work
        self.gradients["test" if phase == "test" else "tuning"] += tasks(found) * (self._plan.horizon + 1)
        return found

    def _loaded(self, content: bytes) -> Curves:
        tensors = {name: tensor.to(self._device) for name, tensor in load(content).items()}
        held_out = HeldOut(tensors["held_out_losses"], tensors["accuracies"]) if "accuracies" in tensors else None
        return Curves(tensors["losses"], held_out, self._looks or None, _pictures(tensors))

    def _key(self, baseline: Baseline, sample: Sample, **settings: Any) -> str:
        family = self._spec.family
        facts = {
            "format": FORMAT,
            "baseline": [baseline.name, baseline.version],
            "settings": settings,
            "tasks": family.tasks.model_dump(mode="json"),
            "plugin": family.plugin,
            "sample": asdict(sample),
            "horizon": self._plan.horizon,
            "on": self._plan.on,
            **computed_on(self._dtype, self._device),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def computed_on(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What the last bits of a result depend on, besides what is computed."""
    return {
        "dtype": str(dtype),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _pictures(tensors: Mapping[str, Tensor]) -> Pictures | None:
    """The pictures of a stored run, on the CPU; None where it has none."""
    if "pictures" not in tensors:
        return None
    given = {name.removeprefix(_GIVEN): each.cpu() for name, each in tensors.items() if name.startswith(_GIVEN)}
    return Pictures(tensors["pictures"].cpu(), tuple(tensors["pictured_steps"].tolist()), given)


def _dumped(found: Curves) -> bytes:
    tensors = {"losses": found.losses}
    if found.held_out is not None:
        tensors |= {"held_out_losses": found.held_out.losses, "accuracies": found.held_out.accuracies}
    if found.pictures is not None:
        steps = torch.tensor(found.pictures.steps)
        given = {f"{_GIVEN}{name}": images for name, images in found.pictures.given.items()}
        tensors |= {"pictures": found.pictures.images, "pictured_steps": steps} | given
    return save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
