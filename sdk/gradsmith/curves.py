"""A loss curve in other forms: pandas, matplotlib, CSV, TensorBoard. Each package is imported when it is needed."""

from __future__ import annotations

import csv
import io
import math
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradsmith.errors import MissingDependency

if TYPE_CHECKING:
    from gradsmith.types import Curve

COLUMNS = ("step", "loss", "gradient_norm", "validation", "learning_rate", "skipped")
_DRAWN = ("loss", "gradient_norm", "validation", "learning_rate")


def to_pandas(curve: Curve) -> Any:
    """See `Curve.to_pandas`."""
    pandas = _needed("pandas", "to_pandas")
    values = {name: list(getattr(curve, name)) for name in COLUMNS[1:]}
    frame = pandas.DataFrame(values, index=pandas.Index(curve.step, name="step"))
    for name in ("validation", "learning_rate"):  # None where there was none
        frame[name] = frame[name].astype("float64")
    return frame


def plot(curve: Curve, axes: Any | None, log: bool | None) -> Any:
    """See `Curve.plot`."""
    if axes is None:
        axes = _needed("matplotlib.pyplot", "plot").subplots(figsize=(8, 4))[1]
    axes.plot(curve.step, curve.loss, label="loss", linewidth=1.0)
    measured = [(step, value) for step, value in zip(curve.step, curve.validation, strict=True) if value is not None]
    if measured:
        axes.plot(*zip(*measured, strict=True), "o-", markersize=3, label="validation")
    finite = [value for value in (*curve.loss, *(value for _, value in measured)) if math.isfinite(value)]
    if log or (log is None and finite and min(finite) > 0):
        axes.set_yscale("log")
    axes.set(xlabel="meta-step", ylabel="loss", title=curve.job)
    axes.legend()
    return axes


def to_csv(curve: Curve, path: str | os.PathLike[str] | None) -> str | Path:
    """See `Curve.to_csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in zip(*(getattr(curve, name) for name in COLUMNS), strict=True):
        writer.writerow(["" if value is None else str(value).lower() if isinstance(value, bool) else value
                         for value in row])  # fmt: skip
    if path is None:
        return text.getvalue()
    Path(path).write_text(text.getvalue(), encoding="utf-8", newline="")
    return Path(path)


def to_tensorboard(curve: Curve, folder: str | os.PathLike[str]) -> Path:
    """See `Curve.to_tensorboard`."""
    events = _needed("tensorboard.summary.writer.event_file_writer", "to_tensorboard")
    event_pb2 = _needed("tensorboard.compat.proto.event_pb2", "to_tensorboard")
    summary_pb2 = _needed("tensorboard.compat.proto.summary_pb2", "to_tensorboard")
    writer = events.EventFileWriter(os.fspath(folder))
    try:
        for row, step in enumerate(curve.step):
            values = [(name, getattr(curve, name)[row]) for name in _DRAWN]
            summary = summary_pb2.Summary(
                value=[
                    summary_pb2.Summary.Value(tag=f"gradsmith/{name}", simple_value=value)
                    for name, value in values
                    if value is not None
                ]
            )
            writer.add_event(event_pb2.Event(step=step, summary=summary))
    finally:
        writer.close()
    return Path(folder)


def _needed(module: str, method: str) -> Any:
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(f"Curve.{method} needs {package}: pip install {package}") from error
