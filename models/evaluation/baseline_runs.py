"""The runs of baselines, which do not depend on what is measured: computed once, kept, and the same bits afterwards.

What a run depends on is its key: the tasks, the sample, the horizon, the baseline and its settings, and what computes
it. An evaluation is handed a store that holds runs by such keys; it computes what the store does not have, and puts it
there.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from models.baselines import TUNED
from models.baselines.base import Baseline, Tunable
from models.curves import Curves
from models.evaluation.sharing import Piece, one_thread, shared
from models.film import Pictures, pictured_steps
from models.halving import tune_by_halving
from models.looks import looks
from models.measured import MeasuringProgress, Runs, Stopwatch
from models.rollout import Contender, Sample, run
from models.spec import BaselineName, EvaluateSpec, PreviewSpec
from models.tasks.base import Family, HeldOut
from models.tuning import GridPoint, Tuned, Tuning, tune
from models.tuning_budget import runs_of

FORMAT = 3
"""Counts changes after which equal keys would give other runs: of tasks, of rollouts, of the search."""

Phase = Literal["tuning", "test", "targets"]
"""What a run is for: to tune, to be compared, or to set the targets."""

T = TypeVar("T")
_SECONDS = struct.Struct("<d")  # before what was found
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


@dataclass(frozen=True)
class Wanted(Generic[T]):
    """A run of a baseline, or its sweep, that is found in the store or computed.

    settings: what it depends on, besides the sample and what `BaselineRuns` knows
    work: computes it, and yields now and then; where `yields_runs`, something else than None for each run that is done
    loaded, dumped: from bytes and to bytes
    tasks: how many tasks it ran on
    runs: how many it counts for
    """

    phase: Phase
    baseline: Baseline
    message: str
    sample: Sample
    settings: dict[str, Any]
    work: Callable[[], Generator[object | None, None, T]]
    loaded: Callable[[bytes], T]
    dumped: Callable[[T], bytes]
    tasks: Callable[[T], int]
    runs: int = 1
    yields_runs: bool = False

    def content(self) -> Generator[object | None, None, bytes]:
        """The work, whose result is bytes: its seconds, and what was found."""
        watch = Stopwatch()
        found = yield from watch.timing(self.work())
        return _SECONDS.pack(watch.seconds) + self.dumped(found)


class BaselineRuns:
    """The runs of baselines that one evaluation or preview needs.

    store: None computes everything
    helpers: processes that may help; what they and this one compute has the bits of one thread
    gradients: evaluations of a task's gradient that were computed here, by split
    stored: what was found in the store: the job that had computed it, by phase and baseline
    seconds: those of what was computed here, by phase and baseline; where processes share the work, each has its share
        of the seconds that passed
    """

    def __init__(
        self,
        spec: EvaluateSpec | PreviewSpec,
        dtype: torch.dtype,
        device: torch.device,
        runs: Runs,
        store: BaselineStore | None = None,
        helpers: int = 0,
    ) -> None:
        self.gradients = {"tuning": 0, "test": 0}
        self.stored: dict[Phase, dict[str, str]] = {"tuning": {}, "test": {}, "targets": {}}
        self.seconds: dict[Phase, dict[str, float]] = {"tuning": {}, "test": {}, "targets": {}}
        self._spec = spec
        self._plan = spec.evaluation
        self._dtype = dtype
        self._device = device
        self._runs = runs
        self._store = store
        self._helpers = helpers
        self._looks = looks(spec.evaluation.horizon) if spec.evaluation.on == "held_out" else ()

    def tuned(self, name: BaselineName, family: Family, sample: Sample) -> Wanted[Tuning]:
        """The sweep of a baseline of the tuned tier. family: opened for tuning"""
        plan, baseline = self._plan, TUNED[name]
        search = tune if plan.search == "full" else tune_by_halving

        def sweep() -> Generator[object | None, None, Tuning]:
            return search(
                *(baseline, family, sample, plan.horizon, plan.schedules),
                on=plan.on,
                dtype=self._dtype,
                device=self._device,
            )

        def loaded(content: bytes) -> Tuning:
            return Tuning(baseline, plan.horizon, tuple(GridPoint(**point) for point in json.loads(content)))

        def dumped(tuning: Tuning) -> bytes:
            return json.dumps([asdict(point) for point in tuning.points]).encode()

        settings = {"schedules": plan.schedules, "search": plan.search}
        return Wanted(
            *("tuning", baseline, f"tuning {name}'s learning rate", sample, settings, sweep, loaded, dumped),
            runs=runs_of(plan.schedules),
            yields_runs=True,
            tasks=lambda tuning: sum(point.tasks for point in tuning.points),
        )

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
    ) -> Wanted[Curves]:
        """A run of a baseline."""
        horizon = self._plan.horizon

        def steps() -> Generator[object | None, None, Curves]:
            return run(
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
        return Wanted(
            *(phase, baseline, message, sample, settings, steps, self._loaded, _dumped),
            tasks=lambda _: sample.tasks,
        )

    def found(self, wanted: Sequence[Wanted[T]]) -> Generator[MeasuringProgress, None, list[T]]:
        """What the store has, and what is computed, which then goes there; in the order of what is wanted. Baselines
        that look at tensors take the longest, and are begun first."""
        with one_thread() if self._helpers else nullcontext():
            found: dict[int, T] = {}
            keys = [self._key(each.baseline, each.sample, **each.settings) for each in wanted]
            for place, (key, each) in enumerate(zip(keys, wanted, strict=True)):
                stored = None if self._store is None else self._store.get(key)
                if stored is not None:
                    self._runs.done += each.runs
                    self.stored[each.phase][each.baseline.name] = stored.job
                    yield self._runs.so_far(f"{each.baseline.name}, {each.phase}: stored, by job {stored.job}")
                    found[place] = each.loaded(stored.content)
            missing = sorted(range(len(wanted)), key=lambda place: (place in found, not _long(wanted[place].baseline)))
            missing = missing[: len(wanted) - len(found)]
            pieces = [Piece(wanted[place].message, wanted[place].content) for place in missing]
            watch = Stopwatch()
            answers = yield from watch.timing(shared(pieces, self._runs, self._helpers))
            contents = [answer[_SECONDS.size :] for answer in answers]
            self._share_out(watch.seconds, [wanted[place] for place in missing], answers)
            for place, content in zip(missing, contents, strict=True):
                each = wanted[place]
                found[place] = each.loaded(content)
                self._runs.done += 0 if each.yields_runs else each.runs
                split = "test" if each.phase == "test" else "tuning"
                self.gradients[split] += each.tasks(found[place]) * (self._plan.horizon + 1)
                if self._store is not None:
                    self._store.put(keys[place], each.baseline.name, content)
        return [found[place] for place in range(len(wanted))]

    def _share_out(self, passed: float, computed: Sequence[Wanted[T]], answers: Sequence[bytes]) -> None:
        """Give each its share of the seconds that passed."""
        own = [_SECONDS.unpack_from(answer)[0] for answer in answers]
        for each, seconds in zip(computed, own, strict=True):
            found = self.seconds[each.phase]
            found[each.baseline.name] = found.get(each.baseline.name, 0.0) + passed * seconds / sum(own)

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


def _long(baseline: Baseline) -> bool:
    return isinstance(baseline, Tunable) and baseline.of_each


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
