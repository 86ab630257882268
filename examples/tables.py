"""Two tables to try the service with, made from data that come with scikit-learn.

    python examples/tables.py FOLDER      # writes clinics.csv and wine.csv

clinics.csv: breast-cancer samples in 200 clinics, whose patients differ: each clinic has 30 to 60 of the 569 samples,
drawn more often the further they lie in a direction of its own. Clinics share samples. wine.csv: 178 wines of three
kinds.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine

CLINICS, FEWEST, MOST = 200, 30, 60


def clinics(count: int = CLINICS, seed: int = 0) -> Iterable[Sequence[object]]:
    """The line of names, then a patient a row. seed: other clinics with another one"""
    data = load_breast_cancer()
    standard = (data.data - data.data.mean(0)) / data.data.std(0)
    random = np.random.default_rng(seed)
    yield ["clinic", *(name.replace(" ", "_") for name in data.feature_names), "diagnosis"]
    for clinic in range(count):
        direction = random.normal(size=standard.shape[1])
        pull = np.exp(standard @ direction / np.linalg.norm(direction))
        size = random.integers(FEWEST, MOST + 1)
        for row in random.choice(len(standard), size, replace=False, p=pull / pull.sum()):
            yield [f"clinic-{clinic:03}", *data.data[row], data.target_names[data.target[row]]]


def wines() -> Iterable[Sequence[object]]:
    """The line of names, then a wine a row."""
    data = load_wine()
    yield [*(name.replace("/", "_") for name in data.feature_names), "kind"]
    for values, kind in zip(data.data, data.target, strict=True):
        yield [*values, data.target_names[kind]]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("clinics.csv", clinics()), ("wine.csv", wines())):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
