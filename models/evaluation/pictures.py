"""Pictures of runs as plain JSON: PNG files in base64, a sheet for each optimizer."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.film import Pictures


def pictures_of(taken: Mapping[str, Pictures]) -> dict[str, Any]:
    """taken: of each optimizer, on the same tasks after the same steps.

    A sheet has a row for each task. An optimizer's has a column for each step; what is given has one column.
    """
    first = next(iter(taken.values()))
    tasks, _, height, width, _ = first.images.shape
    return {
        "tasks": tasks,
        "height": height,
        "width": width,
        "steps": list(first.steps),
        "given": {name: _sheet(images[:, None]) for name, images in first.given.items()},
        "optimizers": {name: _sheet(each.images) for name, each in taken.items()},
    }


def _sheet(images: Tensor) -> str:
    """(rows, columns, height, width, 3) -> PNG in base64."""
    rows, columns, height, width, channels = images.shape
    sheet = images.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return base64.b64encode(png(sheet.numpy())).decode()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of RGB pixels, (height, width, 3) uint8: each row with the filter `Sub`, which suits photos."""
    height, width, _ = pixels.shape
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]  # modulo 256
    rows = np.concatenate([np.ones((height, 1), np.uint8), differences.reshape(height, -1)], axis=1)
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
