"""The data sets of Neural Art with small networks of random weights and random pictures, in the published formats."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from models.families.style import data
from models.families.style.networks import NETWORKS, Conv, Fire
from models.tasks.published import PublishedFile, PublishedFiles

PHOTOS = 13  # of which test and validation take ten
WIDTH = 3  # channels of every layer


def weights(network: str) -> dict[str, torch.Tensor]:
    """A network's tensors under their published names, with few channels."""
    generator, found, channels = torch.Generator().manual_seed(1), {}, 3

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        scale = 1.5 / (inputs * kernel**2) ** 0.5
        found[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * scale
        found[f"{name}.bias"] = torch.rand(outputs, generator=generator) * 0.2

    for layer in NETWORKS[network].layers:
        match layer:
            case Conv():
                outputs = WIDTH if layer.name else 3
                convolution(layer.tensor, outputs, channels, layer.kernel)
                channels = outputs
            case Fire():
                convolution(f"{layer.tensor}.squeeze", 2, channels, 1)
                convolution(f"{layer.tensor}.expand1x1", WIDTH, 2, 1)
                convolution(f"{layer.tensor}.expand3x3", WIDTH, 2, 3)
                channels = 2 * WIDTH
    return found


def pictures() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Photos of 128x128 pixels at half size, one tile of each at a quarter, and two paintings."""
    generator = np.random.default_rng(0)
    photos = generator.integers(0, 256, (PHOTOS, 128, 128, 3), dtype=np.uint8)
    places = np.array([(row, column) for row in (0, 1) for column in (0, 1)], dtype=np.int16)
    tiles = [
        photo[64 * row : 64 * row + 64, 64 * column : 64 * column + 64] for photo in photos for row, column in places
    ]
    content = {
        "tiles_div4": photos[:, ::2, ::2],
        "photo_div4": np.arange(PHOTOS, dtype=np.int16),
        "tiles_div2": np.stack(tiles),
        "photo_div2": np.repeat(np.arange(PHOTOS, dtype=np.int16), 4),
        "rowcol_div2": np.tile(places, (PHOTOS, 1)),
        "photo_names": np.array([f"photo{number}.png" for number in range(PHOTOS)]),
    }
    style = {
        "images": generator.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8),
        "names": np.array(["starry_night.jpg", "composition_vii.jpg"]),
    }
    return content, style


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.fixture
def art_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, in subfolders; their checksums count as the published ones."""
    content, style = pictures()
    files = {"content/content64.npz": _npz(content), "style/style64.npz": _npz(style)}
    files |= {f"vision/{network.file}": save(weights(name)) for name, network in NETWORKS.items()}
    folder = tmp_path / "source"
    for name, found in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(found)
    own = {
        Path(name).name: PublishedFile(Path(name).name, hashlib.sha256(found).hexdigest())
        for name, found in files.items()
    }
    monkeypatch.setattr(data, "ART_FILES", PublishedFiles("art", (own["content64.npz"], own["style64.npz"])))
    monkeypatch.setattr(data, "ART", data.ART_FILES.data_set())
    for name, network in NETWORKS.items():
        files_of = PublishedFiles(name, (own[network.file],))
        monkeypatch.setitem(data.NETWORK_FILES, name, files_of)
        monkeypatch.setattr(data, {"vgg19-distilled": "VGG", "squeezenet": "SQUEEZENET"}[name], files_of.data_set())
    return folder


@pytest.fixture
def art_data(art_source: Path, tmp_path: Path) -> Path:
    """A data folder that has them all."""
    for files in (data.ART_FILES, *data.NETWORK_FILES.values()):
        files.bring(tmp_path / "data", art_source)
    return tmp_path / "data"
