"""Tables of your own, from a file to what families are made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from gradsmith.resources import given, parsed
from gradsmith.transport import Transport
from gradsmith.types import Dataset, Page


class Datasets:
    """`client.datasets`.

    client.datasets.create("customers.csv", name="customers", target="churned", group="customer")
    client.families.create("churn", {"kind": "regression", "dataset": "customers", "loss": "logistic"})
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        target: str | None = None,
        group: str | None = None,
        inputs: Sequence[str] = (),
    ) -> Dataset:
        """Send a file: CSV, npz or safetensors. It is streamed, checked by its SHA-256, and kept whole or not at all.

        name: default: the file's, without its ending
        target: the column that is predicted
        group: the column that says which rows belong to which task, such as a customer
        inputs: the columns that a model sees; default: all other columns of numbers

        A data set never changes: the same call again returns it, another one with its name raises Conflict. Raises
        InvalidRequest, which says what is wrong with the file, and OSError.
        """
        file = Path(path)
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        params = given({"name": name or file.stem.lower(), "target": target, "group": group, "sha256": sha256})
        params |= {"input": list(inputs)} if inputs else {}
        return parsed(self._transport.upload("/datasets", file, params=params), Dataset.from_json)

    def list(self) -> Page[Dataset]:
        """All data sets of your workspace, by name."""
        return parsed(self._transport.request("GET", "/datasets"), lambda raw: Page.from_json(raw, Dataset.from_json))

    def get(self, name: str) -> Dataset:
        """One data set: its columns, classes and groups. Raises NotFound."""
        return parsed(self._transport.request("GET", _path(name)), Dataset.from_json)

    def delete(self, name: str) -> None:
        """Forget it. Raises NotFound, and Conflict where a family is made of it."""
        self._transport.request("DELETE", _path(name), tries=1)


def _path(name: str) -> str:
    return "/datasets/" + quote(name, safe="")
