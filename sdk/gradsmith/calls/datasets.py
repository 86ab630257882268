"""Tables of your own, from a file to what families are made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gradsmith.answers import items, nothing, record
from gradsmith.calls.base import M, Resource, call, given, listing, path
from gradsmith.programs import Call, Items
from gradsmith.types import BuiltInDataset, Dataset

_LOOKED_AT_SECONDS = 900.0  # the server may take its time to look at a large file


class Datasets(Resource[M]):
    """`client.datasets`.

    client.datasets.create("customers.csv", name="customers", target="churned", group="customer")
    client.families.create("churn", {"kind": "regression", "dataset": "customers", "loss": "logistic"})
    """

    @call
    def create(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        target: str | None = None,
        group: str | None = None,
        inputs: Sequence[str] = (),
    ) -> Call[Dataset]:
        """Send a file: CSV, npz or safetensors. It is streamed, checked by its SHA-256, and kept whole or not at all.

        name: default: the file's, without its ending
        target: the column that is predicted
        group: the column that says which rows belong to which task, such as a customer
        inputs: the columns that a model sees; default: all other columns of numbers

        A data set never changes: the same call again returns it, another one with its name raises Conflict. It is sent
        once: after ConnectionFailed the same call finds what was kept, or sends it again. Raises InvalidRequest, which
        says what is wrong with the file, and OSError.
        """
        file = Path(path)
        params = given({"name": name or file.stem.lower(), "target": target, "group": group})
        params |= {"input": [*inputs]} if inputs else {}
        return Call(
            "POST", "/datasets", record(Dataset.from_json), params=params, file=file, repeatable=False,
            read_timeout_seconds=_LOOKED_AT_SECONDS,
        )  # fmt: skip

    @listing
    def list(self) -> Call[Items[Dataset]]:
        """All data sets of your workspace, by name."""
        return Call("GET", "/datasets", items(Dataset.from_json))

    @call
    def get(self, name: str) -> Call[Dataset]:
        """One data set: its columns, classes and groups. Raises NotFound."""
        return Call("GET", path("datasets", name), record(Dataset.from_json))

    @call
    def delete(self, name: str) -> Call[None]:
        """Forget it. Raises NotFound, and Conflict where a family is made of it."""
        return Call("DELETE", path("datasets", name), nothing, repeatable=False)

    @call
    def fetch(self, name: str) -> Call[BuiltInDataset]:
        """Have the server download a data set of its own families, such as mnist. Returns at once; `state` says how far
        it is. Raises NotFound, Conflict where nobody publishes it for programs, and Forbidden without an admin key on a
        server with keys."""
        return Call("POST", path("datasets", name, "fetch"), record(BuiltInDataset.from_json))

    @call
    def state(self, name: str) -> Call[BuiltInDataset]:
        """Whether a data set of the server's own families is there, and how its download stands. Raises NotFound."""
        return Call("GET", path("datasets", name, "fetch"), record(BuiltInDataset.from_json))
