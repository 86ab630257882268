"""Tasks whose loss is an expression: drawn, computed for many at once, with gradients and products by autograd."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.families.expression import ExpressionSpec
from models.families.expression.compute import run
from models.families.expression.program import Program
from models.families.expression.values import Bernoulli, Constant, Draw, Integers, LogUniform, Normal, Start, Uniform
from models.spec import Split
from models.tasks.autograd_batch import AutogradBatch
from models.tasks.base import Family, TaskBatch
from models.tasks.randomness import drawn, normals, streams, uniforms


class ExpressionBatch(AutogradBatch):
    """The start (tasks, coordinates), what stays fixed (tasks or 1, *shape), and the seeds of draws of a step."""

    def __init__(
        self, spec: ExpressionSpec, program: Program, start: Tensor, fixed: Mapping[str, Tensor], anew: Tensor
    ) -> None:
        super().__init__(start.shape[0], start.shape[1], start.dtype, start.device)
        self._spec = spec
        self._program = program
        self._start = start
        self._fixed = fixed
        self._anew = anew
        self._steps = {name: draw for name, draw in sorted(spec.draws.items()) if draw.each == "step"}

    def initial(self) -> Tensor:
        return self._start.reshape(-1).clone()

    def buffers(self) -> Mapping[str, Tensor]:
        return {"start": self._start, "anew": self._anew, **self._fixed}

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        parameters = torch.split(theta.view(self.tasks, -1), [part.size for part in self._spec.parts()], dim=1)
        names = (part.name for part in self._spec.parts())
        inputs = {
            name: values.view(self.tasks, *self._spec.parameters[name].shape)
            for name, values in zip(names, parameters, strict=True)
        }
        for name, draw in self._steps.items():
            inputs[name] = numbers(draw, streams(self._anew, name), self.dtype, step)
        values = run(self._program, {**inputs, **self._fixed})
        return values[self._program.result].expand(self.tasks)


def numbers(draw: Start | Draw, stream: Tensor, dtype: torch.dtype, step: int | Tensor | None = None) -> Tensor:
    """The numbers that each stream draws, (tasks, *shape). step: that of a draw which is made anew at each."""
    if step is not None:
        stream = stream ^ (streams(stream, "step") * step)
    tasks, count = stream.shape[0], draw.size
    match draw:
        case Constant():
            values = torch.full((tasks, count), draw.value, dtype=dtype, device=stream.device)
        case Normal():
            values = drawn(normals, stream, count, dtype) * draw.std + draw.mean
        case Uniform():
            values = drawn(uniforms, stream, count, dtype) * (draw.high - draw.low) + draw.low
        case LogUniform():
            values = (drawn(uniforms, stream, count, dtype) * math.log(draw.high / draw.low)).exp() * draw.low
        case Integers():
            values = (
                (drawn(uniforms, stream, count, torch.float64) * (draw.high - draw.low) + draw.low).floor().to(dtype)
            )
        case Bernoulli():
            values = (drawn(uniforms, stream, count, torch.float64) < draw.probability).to(dtype)
    return values.view(tasks, *draw.shape)


class ExpressionFamily(Family):
    """Draws where each parameter starts, and what is drawn once for a task."""

    def __init__(
        self,
        spec: ExpressionSpec,
        splits: Collection[Split],
        data_dir: Path | None = None,  # noqa: ARG002 - everything is in the spec
    ) -> None:
        # A store may hand the fields back in another order, and the tasks must not change with it.
        told = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
        super().__init__(f"expression/{told}", spec.coordinates_per_task, splits)
        self.spec = spec
        self._once, self._program = spec.divided

    def _batches(
        self,
        seeds: Tensor,
        split: Split,  # noqa: ARG002 - there are no data to keep apart
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[TaskBatch, ...]:
        starts = [
            numbers(start, streams(seeds, f"start of {name}"), dtype).reshape(seeds.shape[0], -1)
            for name, start in sorted(self.spec.parameters.items())
        ]
        fixed = {
            name: numbers(draw, streams(seeds, name), dtype).to(device)
            for name, draw in sorted(self.spec.draws.items())
            if draw.each == "task"
        }
        start = torch.cat(starts, dim=1).to(device)
        for name, array in self.spec.constants.items():
            fixed[name] = torch.tensor(array, dtype=dtype, device=device).unsqueeze(0)
        if self._once.labels:
            values = run(self._once, fixed)
            fixed |= {label: values[slot].clone() for label, slot in self._once.labels.items()}
        return (ExpressionBatch(self.spec, self._program, start, fixed, streams(seeds, "anew").to(device)),)
