"""CIFAR-10 on disk (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009): three data sets.

    ./run data fetch cifar10 --data DIR                 # the binary archive from its authors, 170 MB, checked
    ./run data import cifar10 FOLDER --data DIR         # from a folder that has the archive
    ./run data import cifar10-subset FOLDER --data DIR  # 7,044 + 1,000 images, exact: cifar10_lossless_subset.npz
    ./run data import cifar10-jpeg FOLDER --data DIR    # all images as JPEG, decoded by Pillow: cifar10_jpeg_full.npz

What a source is, is checked by the checksum of the file that was published. It is then kept in one layout, whatever it
came from: `train.bin` and `test.bin` in `<data folder>/datasets/<name>`, an image after the other as its label and its
pixels row by row (1 + 32 * 32 * 3 bytes), and SHA256SUMS of both, which each load checks. The archive of pickles is
never read.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import DatasetCorrupt, DatasetMissing, DownloadFailed
from models.tasks.data import DataSet, Progress, downloaded, write_atomically

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Pixels (images, 3072), a place's colours side by side, and labels (images,)."""

SIDE, COLOURS = 32, 3
PIXELS = SIDE * SIDE * COLOURS
PARTS = ("train", "test")
SUMS = "SHA256SUMS"
ARCHIVE = "cifar-10-binary.tar.gz"
HOSTS = ("https://www.cs.toronto.edu/~kriz/",)
_ARCHIVE_BYTES = 200 * 2**20  # at most
_MD5, _SHA256 = hashlib.md5, hashlib.sha256

SOURCES: dict[str, tuple[str, Callable[..., object], str]] = {
    "cifar10": (ARCHIVE, _MD5, "c32a1d4ab5d03f1284b67883e8d87530"),  # the authors' page has no other checksum
    "cifar10-subset": (
        "cifar10_lossless_subset.npz",
        _SHA256,
        "1cc41e15dc863c1bc61bd69d3552a4875041c2eb324df364d07325ea1a6456be",
    ),
    "cifar10-jpeg": (
        "cifar10_jpeg_full.npz",
        _SHA256,
        "68528b894ecaf4cbb97a1c4e7a9ddd6ce5c091981497838107487a55d1eaeacd",
    ),
}
"""The file that each data set is imported from, and that file's checksum."""


def folder_of(name: str, data_dir: Path) -> Path:
    """Where the data set is looked for, and where `fetch` and `bring` put it."""
    return data_dir / "datasets" / name


def load(name: str, data_dir: Path | None) -> dict[str, Part]:
    """`train` and `test`. Raises DatasetMissing, which names the command that brings it, and DatasetCorrupt."""
    if data_dir is None:
        raise DatasetMissing(f"The data set {name} needs a data folder: set GRADSMITH_DATA_DIR to one.")
    folder = folder_of(name, data_dir)
    if (missing := lacking(name, data_dir)) is not None:
        raise DatasetMissing(missing)
    sums = {file: digest for digest, file in (line.split("  ") for line in (folder / SUMS).read_text().splitlines())}
    found = {}
    for part in PARTS:
        path = folder / f"{part}.bin"
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sums.get(path.name):
            raise DatasetCorrupt(
                f"{path} is damaged: its sha256 is not the one in {folder / SUMS}. Delete {folder} and bring the data "
                f"set again: {_advice(name, data_dir)}"
            )
        rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, 1 + PIXELS)
        found[part] = rows[:, 1:].copy(), rows[:, 0].copy()
    return found


def lacking(name: str, data_dir: Path) -> str | None:
    """What is missing and the command that brings it; None where nothing is. Opens no file."""
    folder = folder_of(name, data_dir)
    missing = [file for file in (*(f"{part}.bin" for part in PARTS), SUMS) if not (folder / file).is_file()]
    if not missing:
        return None
    return f"The data set {name} is not complete: {folder} lacks {', '.join(missing)}. {_advice(name, data_dir)}"


def _advice(name: str, data_dir: Path) -> str:
    end = f"--data {shlex.quote(str(data_dir.resolve()))}"
    source = SOURCES[name][0]
    brought = f"`./run data import {name} FOLDER {end}`, where FOLDER has {source}"
    if name == "cifar10":
        brought = f"`./run data fetch {name} {end}`, or, without a network, with {brought}"
    return f"Bring it with {brought} (where there is no ./run: `gradsmith-server data ...`)."


def fetch(data_dir: Path, progress: Progress, *, hosts: tuple[str, ...] = HOSTS) -> Path:
    """Download the binary archive, check it and keep its images. Returns the folder."""
    reasons = []
    for host in hosts:
        try:
            content = downloaded(f"{host}{ARCHIVE}", ARCHIVE, progress, most=_ARCHIVE_BYTES)
            return _kept("cifar10", data_dir, _checked("cifar10", content, f"{host}{ARCHIVE}"))
        except (OSError, DatasetCorrupt) as error:
            reasons.append(f"{host}{ARCHIVE}: {error}")
    raise DownloadFailed(str(lacking("cifar10", data_dir)), reasons)


def bring(name: str, data_dir: Path, source: Path) -> Path:
    """Check the data set's file in the folder `source` and keep its images. Returns the folder where they are."""
    path = source / SOURCES[name][0]
    if not path.is_file():
        raise DatasetMissing(f"The data set {name} is imported from {path.name}, which is not in {source}.")
    return _kept(name, data_dir, _checked(name, path.read_bytes(), str(path)))


def _checked(name: str, content: bytes, origin: str) -> bytes:
    _, digest, wanted = SOURCES[name]
    found = digest(content).hexdigest()  # type: ignore[attr-defined]
    if found != wanted:
        raise DatasetCorrupt(f"{origin} is not the published file: its checksum is {found}, not {wanted}.")
    return content


def _kept(name: str, data_dir: Path, content: bytes) -> Path:
    parts = _READERS[name](content)
    folder = folder_of(name, data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    sums = []
    for part, (pixels, labels) in parts.items():
        rows = np.concatenate((labels.reshape(-1, 1), pixels.reshape(-1, PIXELS)), axis=1).astype(np.uint8).tobytes()
        write_atomically(folder / f"{part}.bin", rows)
        sums.append(f"{hashlib.sha256(rows).hexdigest()}  {part}.bin\n")
    write_atomically(folder / SUMS, "".join(sums).encode())
    return folder


def _of_archive(content: bytes) -> dict[str, Part]:
    """Each image is its label and its pixels, colour by colour."""
    found: dict[str, list[NDArray[np.uint8]]] = {part: [] for part in PARTS}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}
        for part, files in (("train", [f"data_batch_{n}.bin" for n in range(1, 6)]), ("test", ["test_batch.bin"])):
            for file in files:
                stream = archive.extractfile(members[file])
                assert stream is not None
                found[part].append(np.frombuffer(stream.read(), dtype=np.uint8).reshape(-1, 1 + PIXELS))
    together = {part: np.concatenate(rows) for part, rows in found.items()}
    return {
        part: (rows[:, 1:].reshape(-1, COLOURS, SIDE, SIDE).transpose(0, 2, 3, 1), rows[:, 0])
        for part, rows in together.items()
    }


def _of_subset(content: bytes) -> dict[str, Part]:
    with np.load(io.BytesIO(content), allow_pickle=False) as data:
        return {part: (data[f"x_{part}"], data[f"y_{part}"]) for part in PARTS}


def _of_jpeg(content: bytes) -> dict[str, Part]:
    from PIL import Image  # matplotlib brings it; only this data set needs it

    with np.load(io.BytesIO(content), allow_pickle=False) as data:
        found = {}
        for part in PARTS:
            stream, offsets = data[f"{part}_jpeg"].tobytes(), data[f"{part}_offsets"].tolist()
            images = [
                np.asarray(Image.open(io.BytesIO(stream[first:end])).convert("RGB")) for first, end in pairwise(offsets)
            ]
            found[part] = np.stack(images), data[f"{part}_labels"]
    return found


_READERS = {"cifar10": _of_archive, "cifar10-subset": _of_subset, "cifar10-jpeg": _of_jpeg}


def _check(name: str, data_dir: Path) -> None:
    load(name, data_dir)


def _state(name: str, data_dir: Path) -> str:
    folder = folder_of(name, data_dir)
    return f"{'ready' if lacking(name, data_dir) is None else 'not'} in {folder}"


def _data_set(name: str) -> DataSet:
    return DataSet(
        name,
        partial(_check, name),
        partial(_state, name),
        fetch=fetch if name == "cifar10" else None,
        bring=partial(bring, name),
        lacking=partial(lacking, name),
        alternative=name != "cifar10",
    )


WHOLE, SUBSET, JPEG = (_data_set(name) for name in ("cifar10", "cifar10-subset", "cifar10-jpeg"))
