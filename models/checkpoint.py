"""The progress of a meta-training run: an immutable value, and the bytes that resume it bit for bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic_core import to_json
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from models.errors import CheckpointMismatch
from models.meta_optimizer import AdamState
from models.seal import is_sealed, seal, unseal
from models.spec import MetaTrainSpec

FORMAT_VERSION = 3  # 2 names its job by `_fingerprint_until_2`; 1 does so too, and has no seal
_KEY = "gradsmith-checkpoint"
_TENSORS = ("weights", "averaged", "best_weights", "adam")


@dataclass(frozen=True)
class Cost:
    """What a run has spent. One inner gradient evaluation is one gradient of one task's loss."""

    training_gradients: int = 0
    selection_gradients: int = 0
    training_seconds: float = 0.0
    selection_seconds: float = 0.0

    @property
    def seconds_a_gradient(self) -> float:
        """Mean seconds that training has spent on an inner gradient evaluation so far."""
        return self.training_seconds / max(1, self.training_gradients)

    def training(self, gradients: int, seconds: float) -> Cost:
        """Add what was spent on meta-steps."""
        return replace(
            self,
            training_gradients=self.training_gradients + gradients,
            training_seconds=self.training_seconds + seconds,
        )

    def selection(self, gradients: int, seconds: float) -> Cost:
        """Add what was spent on validation."""
        return replace(
            self,
            selection_gradients=self.selection_gradients + gradients,
            selection_seconds=self.selection_seconds + seconds,
        )


@dataclass(frozen=True)
class TrainingProgress:
    """A run between two trajectories. Vectors are flat, in the order of `rule.parameters()`."""

    weights: Tensor
    averaged: Tensor
    """Moving average of `weights` over meta-steps."""
    best_weights: Tensor
    """The average with the best validation score."""
    adam: AdamState
    step: int = 0
    """Meta-steps done."""
    trajectory: int = 0
    """Trajectories begun."""
    since: int = 0
    """Meta-step after which the present initialisation began: 0, or that of the last restart."""
    best_score: float | None = None
    best_step: int = 0
    scores: tuple[float, ...] = ()
    """Validation scores of the present initialisation, in order."""
    standing_still: float | None = None
    """Mean loss of the validation tasks before their first step, which a rule should beat."""
    restarts: tuple[int, ...] = ()
    """Meta-steps after which a new initialisation began."""
    skipped: int = 0
    """Meta-steps skipped so far."""
    skipped_in_a_row: int = 0
    """Meta-steps skipped since the last good one."""
    diverged_windows: int = 0
    """Meta-steps whose loss was not finite."""
    cost: Cost = Cost()

    def but(self, **changes: Any) -> TrainingProgress:
        return replace(self, **changes)


def dumps(progress: TrainingProgress, spec: MetaTrainSpec) -> bytes:
    """Sealed safetensors with one metadata key holding canonical JSON: no pickle, and equal runs give equal bytes
    (the seconds spent aside)."""
    tensors = {
        "weights": progress.weights,
        "averaged": progress.averaged,
        "best_weights": progress.best_weights,
        "adam_first": progress.adam.first,
        "adam_second": progress.adam.second,
    }
    record = {name: value for name, value in vars(progress).items() if name not in _TENSORS}
    record["cost"] = vars(progress.cost)
    header = {
        "format_version": FORMAT_VERSION,
        "job": fingerprint(spec),
        "torch": torch.__version__,
        "adam_count": progress.adam.count,
        "progress": record,
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    # Copies: the best weights may be the present ones, and safetensors refuses tensors that share memory.
    return seal(save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, metadata={_KEY: text}))


def loads(data: bytes, spec: MetaTrainSpec, device: torch.device) -> TrainingProgress:
    """The progress that `dumps` wrote for the same job. Raises CheckpointMismatch: also when one byte has changed.

    Format 1 had no seal, so damage to it is noticed only where it does not parse.
    """
    readable: tuple[int, ...] = (1,)
    if is_sealed(data):
        data, readable = unseal(data), (2, FORMAT_VERSION)
    header = _header(data)
    version = header.get("format_version")
    if version not in readable or isinstance(version, bool):
        raise CheckpointMismatch(
            f"The checkpoint has format version {version!r}, and this version reads 2 and {FORMAT_VERSION} sealed and "
            f"1 without a seal. Start the job again without it."
        )
    if header.get("job") != (fingerprint(spec) if version == FORMAT_VERSION else _fingerprint_until_2(spec)):
        raise CheckpointMismatch("The checkpoint belongs to a job with another spec. Start this job without it.")
    try:
        tensors = {name: tensor.to(device) for name, tensor in load(data).items()}
        record = dict(header["progress"])
        record |= {"scores": tuple(record["scores"]), "restarts": tuple(record["restarts"])}
        record["cost"] = Cost(**record["cost"])
        adam = AdamState(tensors["adam_first"], tensors["adam_second"], int(header["adam_count"]))
        return TrainingProgress(tensors["weights"], tensors["averaged"], tensors["best_weights"], adam, **record)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"The checkpoint is damaged ({error}). Start the job again without it.") from error


def fingerprint(spec: MetaTrainSpec) -> str:
    """A hash of what the job computes. What it runs on (processes, threads, a device) is not in it: that changes last
    bits, and a run goes on all the same; whoever resumes it compares the facts of the two runs."""
    text = spec.model_dump_json(include={"family": {"tasks"}, "seed": True, "recipe": True})
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint_until_2(spec: MetaTrainSpec) -> str | None:
    """`fingerprint` as it was when a recipe had one LSTM and the forget bias beside it; None for any other."""
    parts = json.loads(spec.model_dump_json(include={"family": {"tasks"}, "seed": True, "recipe": True}))
    recipe = parts["recipe"]
    if recipe["rule"]["kind"] != "lstm" or recipe.pop("rules", {}):
        return None
    forget_bias = recipe["rule"].pop("forget_bias")
    fields = list(recipe.items())
    place = list(recipe).index("gradient_clip")
    parts["recipe"] = dict([*fields[:place], ("forget_bias", forget_bias), *fields[place:]])
    return hashlib.sha256(to_json(parts)).hexdigest()


def _header(data: bytes) -> dict[str, Any]:
    try:
        length = int.from_bytes(data[:8], "little")
        return dict(json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointMismatch(
            f"These {len(data)} bytes are not a checkpoint of Gradsmith ({error}). Start the job again without it."
        ) from error
