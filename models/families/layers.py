"""The tensors of a network of dense layers."""

from __future__ import annotations

from itertools import pairwise

from models.task_spec import Part


def layer_parts(sizes: tuple[int, ...]) -> tuple[Part, ...]:
    """sizes: of the inputs and of every layer"""
    return tuple(
        part
        for number, (fan_in, fan_out) in enumerate(pairwise(sizes))
        for part in (
            Part(f"layer{number}.weight", (fan_in, fan_out), "weight"),
            Part(f"layer{number}.bias", (fan_out,), "bias"),
        )
    )
