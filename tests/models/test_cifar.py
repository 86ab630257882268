"""CIFAR-10 on disk: each source checked, kept in one layout, and damage noticed."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import DatasetCorrupt, DatasetMissing
from models.spec import Split
from models.tasks import cifar, images
from models.tasks.images import load_images

TRAIN, TEST = 30, 7


@pytest.fixture
def pictures() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Few images with the shapes of the real ones: blocks of colour, which JPEG hardly changes."""
    generator = np.random.default_rng(0)
    found = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        blocks = generator.integers(0, 256, (count, 2, 2, 3))
        pixels = blocks.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
        found[part] = pixels, generator.permutation(np.arange(count) % 10).astype(np.uint8)
    return found


def put(folder: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `name` is imported from, with its own checksum."""
    folder.mkdir(exist_ok=True)
    file, digest, _ = cifar.SOURCES[name]
    (folder / file).write_bytes(content)
    monkeypatch.setitem(cifar.SOURCES, name, (file, digest, digest(content).hexdigest()))
    return folder


def archive_of(pictures: dict[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """A record as the authors describe it: a byte of label, then 1024 bytes of red, of green and of blue."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        pixels, labels = pictures["train"]
        parts = [(f"data_batch_{n + 1}.bin", pixels[n * 6 : n * 6 + 6], labels[n * 6 : n * 6 + 6]) for n in range(5)]
        for file, some, of_some in (*parts, ("test_batch.bin", *pictures["test"])):
            rows = b"".join(
                bytes([label]) + b"".join(image[:, :, colour].tobytes() for colour in range(3))
                for image, label in zip(some, of_some, strict=True)
            )
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
            member.size = len(rows)
            archive.addfile(member, io.BytesIO(rows))
    return stream.getvalue()


def subset_of(pictures: dict[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    stream = io.BytesIO()
    np.savez(
        stream, **{f"{key}_{part}": value for part in pictures for key, value in zip("xy", pictures[part], strict=True)}
    )
    return stream.getvalue()


def jpeg_of(pictures: dict[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    for part, (pixels, labels) in pictures.items():
        files = []
        for image in pixels:
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "jpeg", quality=95, subsampling=0)
            files.append(stream.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), dtype=np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{part}_labels"] = labels
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "written", "most"),
    [("cifar10", archive_of, 0), ("cifar10-subset", subset_of, 0), ("cifar10-jpeg", jpeg_of, 6)],
)
def test_each_source_gives_the_same_images(tmp_path, pictures, monkeypatch, name, written, most) -> None:
    """most: levels that a pixel may differ by."""
    source = put(tmp_path / "mine", name, written(pictures), monkeypatch)
    folder = cifar.bring(name, tmp_path / "data", source)
    assert {path.name for path in folder.iterdir()} == {"train.bin", "test.bin", "SHA256SUMS"}
    loaded = cifar.load(name, tmp_path / "data")
    for part, (pixels, labels) in pictures.items():
        found, of_found = loaded[part]
        difference = found.reshape(pixels.shape).astype(int) - pixels.astype(int)
        assert np.abs(difference).max() <= most
        assert np.array_equal(of_found, labels)


def test_the_parts_of_the_images_are_apart_and_may_be_of_some_labels(tmp_path, pictures, monkeypatch) -> None:
    cifar.bring("cifar10-subset", tmp_path, put(tmp_path / "mine", "cifar10-subset", subset_of(pictures), monkeypatch))
    monkeypatch.setitem(images.CIFAR_VALIDATION, "cifar10-subset", 10)
    images._cifar.cache_clear()
    parts = load_images("cifar10-subset", set(Split), tmp_path)
    assert {split: len(part) for split, part in parts.items()} == {
        Split.TRAIN: TRAIN - 10, Split.VALIDATION: 10, Split.TEST: TEST,
    }  # fmt: skip
    rows = {split: {bytes(row) for row in part.pixels.numpy()} for split, part in parts.items()}
    assert len(set.union(*rows.values())) == TRAIN + TEST
    some = load_images("cifar10-subset", set(), tmp_path, (3, 1))[Split.TRAIN]
    both = parts[Split.TRAIN]
    assert {bytes(row) for row in some.pixels[some.labels == 0].numpy()} == {
        bytes(row) for row in both.pixels[both.labels == 3].numpy()
    }
    assert set(some.labels.tolist()) <= {0, 1}
    images._cifar.cache_clear()


def test_another_file_is_refused_before_anything_is_written(tmp_path, pictures) -> None:
    (tmp_path / "cifar10_lossless_subset.npz").write_bytes(subset_of(pictures))
    with pytest.raises(DatasetCorrupt, match="not the published file"):
        cifar.bring("cifar10-subset", tmp_path / "data", tmp_path)
    with pytest.raises(DatasetMissing, match=r"imported from cifar-10-binary\.tar\.gz"):
        cifar.bring("cifar10", tmp_path / "data", tmp_path)
    assert not (tmp_path / "data").exists()


def test_damage_and_absence_name_the_command(tmp_path, pictures, monkeypatch) -> None:
    with pytest.raises(
        DatasetMissing, match=r"lacks train\.bin, test\.bin, SHA256SUMS\. Bring it with `\./run data import"
    ):
        cifar.load("cifar10-subset", tmp_path)
    folder = cifar.bring(
        "cifar10-subset", tmp_path, put(tmp_path / "mine", "cifar10-subset", subset_of(pictures), monkeypatch)
    )
    assert cifar.SUBSET.lacking is not None
    assert cifar.SUBSET.lacking(tmp_path) is None
    content = bytearray((folder / "test.bin").read_bytes())
    content[5] ^= 1
    (folder / "test.bin").write_bytes(bytes(content))
    with pytest.raises(DatasetCorrupt, match="damaged"):
        cifar.SUBSET.check(tmp_path)


def test_fetching_takes_the_binary_archive_from_its_host(tmp_path, pictures, monkeypatch) -> None:
    served = put(tmp_path / "served", "cifar10", archive_of(pictures), monkeypatch)
    told: list[tuple[str, int, int | None]] = []
    cifar.fetch(tmp_path, lambda *what: told.append(what), hosts=(f"{served.as_uri()}/",))
    assert told[-1][0] == "cifar-10-binary.tar.gz"
    assert np.array_equal(cifar.load("cifar10", tmp_path)["test"][1], pictures["test"][1])
    with pytest.raises(DatasetMissing, match="Downloading failed"):
        cifar.fetch(tmp_path / "other", lambda *_: None, hosts=((tmp_path / "nowhere").as_uri() + "/",))


def test_the_checksum_of_the_archive_is_the_authors_own() -> None:
    file, digest, published = cifar.SOURCES["cifar10"]
    assert (file, digest, len(published)) == ("cifar-10-binary.tar.gz", hashlib.md5, 32)
