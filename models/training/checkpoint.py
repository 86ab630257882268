"""The bytes from which a meta-training run goes on bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from pydantic_core import to_json
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gradsmith.rules.configs import written
from models.errors import CheckpointMismatch
from models.meta_optimizer import AdamState
from models.seal import is_sealed, seal, unseal
from models.spec import MetaTrainSpec, Recipe
from models.training.progress import Cost, Leader, Live, TrainingProgress
from models.unroll import Position

FORMAT_VERSION = 4  # 3 has a fixed list of recipe fields; 2 names its job by `_fingerprint_until_2`; 1 has no seal
_KEY = "gradsmith-checkpoint"
_TENSORS = ("weights", "averaged", "best_weights", "adam", "live", "leader")
_RECIPE_UNTIL_3 = (
    "rule", "rules", "meta_steps", "horizon", "unroll_steps", "tasks", "meta_learning_rate",
    "final_learning_rate_ratio", "gradient_clip", "averaging", "validation_tasks", "validation_interval",
    "plateau_patience",
)  # fmt: skip


def dumps(progress: TrainingProgress, spec: MetaTrainSpec) -> bytes:
    """Sealed safetensors with one metadata key holding canonical JSON: no pickle, and equal runs give equal bytes
    (the seconds spent aside)."""
    tensors = {"best_weights": progress.best_weights, **_vectors("", progress)}
    record = {name: value for name, value in vars(progress).items() if name not in _TENSORS}
    record["cost"] = vars(progress.cost)
    header: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "job": fingerprint(spec),
        "torch": torch.__version__,
        "adam_count": progress.adam.count,
        "progress": record,
        "live": [],
    }
    for place, live in enumerate(progress.live):
        header["live"].append(
            {
                "number": live.number,
                "start_loss": live.start_loss,
                "backend": live.backend,
                "step": live.step,
                "memories": [len(position.memory) for position in live.positions],
            }
        )
        for group, position in enumerate(live.positions):
            tensors |= _of_position(f"live/{place}/{group}/", position)
    if (leader := progress.leader) is not None:
        tensors |= _vectors("leader/", leader)
        facts = {"number": leader.number, "score": leader.score, "age": leader.age, "scores": leader.scores}
        header["leader"] = {**facts, "adam_count": leader.adam.count}
    header["columns"] = sorted(name for name, tensor in tensors.items() if not tensor.is_contiguous())
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    # Copies: the best weights may be the present ones, and safetensors refuses tensors that share memory.
    rows = {name: _rows(tensor.detach().cpu()).clone() for name, tensor in tensors.items()}
    return seal(save(rows, metadata={_KEY: text}))


def _rows(tensor: Tensor) -> Tensor:
    """The tensor, or its transpose where that is what lies in a row: rules keep (coordinates, width) by columns."""
    return tensor if tensor.is_contiguous() else tensor.t().contiguous()


def _vectors(prefix: str, of: TrainingProgress | Leader) -> dict[str, Tensor]:
    return {
        f"{prefix}weights": of.weights,
        f"{prefix}averaged": of.averaged,
        f"{prefix}adam_first": of.adam.first,
        f"{prefix}adam_second": of.adam.second,
    }


def _of_position(prefix: str, position: Position) -> dict[str, Tensor]:
    memory = {f"{prefix}memory/{number}": tensor for number, tensor in enumerate(position.memory)}
    return {
        f"{prefix}theta": position.theta,
        f"{prefix}gradient": position.gradient,
        f"{prefix}losses": position.losses,
        **memory,
    }


def loads(data: bytes, spec: MetaTrainSpec, device: torch.device) -> TrainingProgress:
    """The progress that `dumps` wrote for the same job. Raises CheckpointMismatch: also when one byte has changed.

    Format 1 had no seal, so damage to it is noticed only where it does not parse.
    """
    readable: tuple[int, ...] = (1,)
    if is_sealed(data):
        data, readable = unseal(data), (2, 3, FORMAT_VERSION)
    header = _header(data)
    version = header.get("format_version")
    if version not in readable or isinstance(version, bool):
        raise CheckpointMismatch(
            f"The checkpoint has format version {version!r}, and this version reads 2 to {FORMAT_VERSION} sealed and "
            f"1 without a seal. Start the job again without it."
        )
    if header.get("job") != fingerprint(spec, version):
        raise CheckpointMismatch("The checkpoint belongs to a job with another spec. Start this job without it.")
    try:
        columns = set(header.get("columns", ()))
        tensors = {name: tensor.to(device) for name, tensor in load(data).items()}
        tensors = {name: tensor.t() if name in columns else tensor for name, tensor in tensors.items()}
        record = {"age": int(header["adam_count"]), **header["progress"]}
        record = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
        record["cost"] = Cost(**record["cost"])
        record["live"] = tuple(
            _live(facts, tensors, f"live/{place}/") for place, facts in enumerate(header.get("live", []))
        )
        record["leader"] = _leader(header["leader"], tensors) if "leader" in header else None
        adam = _adam("", tensors, header["adam_count"])
        return TrainingProgress(tensors["weights"], tensors["averaged"], tensors["best_weights"], adam, **record)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"The checkpoint is damaged ({error}). Start the job again without it.") from error


def _adam(prefix: str, tensors: Mapping[str, Tensor], count: int) -> AdamState:
    return AdamState(tensors[f"{prefix}adam_first"], tensors[f"{prefix}adam_second"], int(count))


def _live(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str) -> Live:
    positions = []
    for group, memories in enumerate(facts["memories"]):
        place = f"{prefix}{group}/"
        memory = tuple(tensors[f"{place}memory/{number}"] for number in range(memories))
        theta, gradient, losses = (tensors[f"{place}{name}"] for name in ("theta", "gradient", "losses"))
        positions.append(Position(facts["step"], theta, memory, gradient, losses))
    return Live(facts["number"], facts["start_loss"], tuple(positions), facts["backend"])


def _leader(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Leader:
    adam = _adam("leader/", tensors, facts["adam_count"])
    weights, averaged = tensors["leader/weights"], tensors["leader/averaged"]
    return Leader(facts["number"], facts["score"], weights, averaged, adam, facts["age"], tuple(facts["scores"]))


def fingerprint(spec: MetaTrainSpec, version: int = FORMAT_VERSION) -> str | None:
    """A hash of what the job computes, as checkpoints of this format have it; None where no such one can belong to it.
    What it runs on (processes, threads, a device) is not in it: that changes last bits, and a run goes on all the
    same; whoever resumes it compares the facts of the two runs."""
    parts = json.loads(spec.model_dump_json(include={"family": {"tasks"}, "seed": True, "recipe": True}))
    recipe = parts["recipe"] = _written(parts["recipe"])
    usual = _written(json.loads(Recipe().model_dump_json()))
    changed = {name: value for name, value in recipe.items() if value != usual[name]}
    if version == FORMAT_VERSION:  # a field that a later version adds changes no hash of a job that does not use it
        parts["recipe"] = changed
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    if changed.keys() - set(_RECIPE_UNTIL_3):
        return None
    parts["recipe"] = {name: recipe[name] for name in _RECIPE_UNTIL_3}
    if version < 3:
        return _fingerprint_until_2(parts)
    return hashlib.sha256(to_json(parts)).hexdigest()


def _written(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with its rules as weights files have them: a setting that a later version adds changes no hash."""
    rules = {pattern: written(rule) for pattern, rule in recipe["rules"].items()}
    return {**recipe, "rule": written(recipe["rule"]), "rules": rules}


def _fingerprint_until_2(parts: dict[str, Any]) -> str | None:
    """`fingerprint` as it was when a recipe had one LSTM and the forget bias beside it; None for any other."""
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
