"""npz and safetensors: an array of one dimension is a column, one of two dimensions is several.

Nothing is unpickled. Of an npz, what its parts say they hold is checked before they are unpacked, and what they really
hold while they are.
"""

from __future__ import annotations

import errno
import io
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.csv_file import checked_names
from models.datasets.source import Limits, Values
from models.errors import DatasetRefused

_NUMBERS = 262_144  # of a chunk, about
_LONGEST_TEXT = 200
_COPIED_BYTES = 1 << 20


class ArraySource:
    """Columns that are arrays, or columns of arrays: x of two dimensions is x.0, x.1 ..."""

    def __init__(self, arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], limits: Limits) -> None:
        self._arrays, self._shapes = arrays, shapes
        for name, shape in shapes.items():
            if len(shape) not in (1, 2) or not math.prod(shape):
                raise DatasetRefused(
                    f"The array {name} has the shape {shape}; a column is (rows,), several are (rows, columns)."
                )
        counts = {name: shape[0] for name, shape in shapes.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())[:6])
            raise DatasetRefused(f"The arrays have different numbers of rows: {told}.")
        if not counts:
            raise DatasetRefused("The file holds no array.")
        self._rows = next(iter(counts.values()))
        if self._rows > limits.rows:
            raise DatasetRefused(f"The file has {self._rows:,} rows, and at most {limits.rows:,} fit.")
        if (wide := sum(math.prod(shape[1:]) for shape in shapes.values())) > limits.columns:
            raise DatasetRefused(f"The file has {wide:,} columns, and at most {limits.columns:,} fit.")
        names = [
            name
            for array, shape in shapes.items()
            for name in ([array] if len(shape) == 1 else [f"{array}.{column}" for column in range(shape[1])])
        ]
        self.names = checked_names(tuple(names), limits)

    def chunks(self) -> Iterator[list[Values]]:
        rows = max(1, _NUMBERS // len(self.names))
        for first in range(0, self._rows, rows):
            chunk: list[Values] = []
            for array, shape in zip(self._arrays.values(), self._shapes.values(), strict=True):
                part = np.asarray(array[first : min(first + rows, self._rows)])
                columns = [part] if len(shape) == 1 else list(part.T)
                chunk += [_values(column) for column in columns]
            yield chunk


def _values(column: NDArray[Any]) -> Values:
    return [str(value) for value in column.tolist()] if column.dtype.kind == "U" else column.astype(np.float64)


class NpzSource(ArraySource):
    """`numpy.savez` and `savez_compressed`."""

    def __init__(self, path: Path, limits: Limits) -> None:
        try:
            # one file without a name, which goes with the arrays that are mapped from it
            with zipfile.ZipFile(path) as file, tempfile.TemporaryFile(dir=path.parent) as unpacked:
                arrays = _unpacked(file, unpacked, limits)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            raise DatasetRefused(f"The file is no whole npz: {error or type(error).__name__}.") from None
        super().__init__(arrays, {name: array.shape for name, array in arrays.items()}, limits)


def _unpacked(file: zipfile.ZipFile, unpacked: IO[bytes], limits: Limits) -> dict[str, NDArray[Any]]:
    members = file.infolist()
    if len(members) > limits.columns:
        raise DatasetRefused(f"The npz has {len(members):,} arrays, and at most {limits.columns:,} fit.")
    if (told := sum(member.file_size for member in members)) > limits.unpacked_bytes:
        raise DatasetRefused(f"The npz unpacks to {told:,} bytes, and at most {limits.unpacked_bytes:,} fit.")
    arrays: dict[str, NDArray[Any]] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            raise DatasetRefused(f"{member.filename[:60]!r} in the file is no array; an npz holds .npy files alone.")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DatasetRefused(f"The array {name} is encrypted, or packed in a way that numpy does not use.")
        if name in arrays:
            raise DatasetRefused(f"The file holds {name} twice.")
        with file.open(member) as stream:
            arrays[name] = _mapped(name, stream, unpacked, limits.unpacked_bytes)
    return arrays


def _mapped(name: str, packed: IO[bytes], unpacked: IO[bytes], most: int) -> NDArray[Any]:
    """The array, appended to `unpacked`, which may have `most` bytes."""
    start = unpacked.seek(0, io.SEEK_END)
    while part := packed.read(_COPIED_BYTES):
        if unpacked.tell() + len(part) > most:
            raise DatasetRefused(
                f"The npz unpacks to more than {most:,} bytes at the array {name}, and says it is less."
            )
        unpacked.write(part)
    end = unpacked.tell()
    unpacked.seek(start)
    try:
        version = np.lib.format.read_magic(unpacked)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(unpacked)
    except (ValueError, TypeError) as error:
        raise DatasetRefused(f"The array {name} has no header that numpy reads: {str(error)[:200]}.") from None
    _refuse_other(name, dtype)
    offset, wanted = unpacked.tell(), math.prod(shape) * dtype.itemsize
    if end - offset != wanted or min(shape, default=0) < 0:
        raise DatasetRefused(
            f"The array {name} announces {wanted:,} bytes ({dtype}, {shape}) and holds {end - offset:,}; is it whole?"
        )
    unpacked.flush()
    return np.memmap(unpacked, dtype, "r", offset, shape, "F" if by_columns else "C") if wanted else np.empty(shape)


def _refuse_other(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise DatasetRefused(f"The array {name} holds Python objects, which are pickled and never read here.")
    if dtype.kind not in "biufU" or dtype.fields or dtype.itemsize == 0:
        raise DatasetRefused(f"The array {name} is {dtype}; numbers and text (U) are read.")
    if dtype.kind == "U" and dtype.itemsize // 4 > _LONGEST_TEXT:
        raise DatasetRefused(f"The array {name} has text of {dtype.itemsize // 4} characters; {_LONGEST_TEXT} fit.")


class SafetensorsSource(ArraySource):
    """Tensors of the types that numpy has."""

    def __init__(self, path: Path, limits: Limits) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            file: Any = safe_open(path, framework="numpy")  # whose stubs have no types
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        except SafetensorError as error:
            raise DatasetRefused(f"The file is no whole safetensors file: {str(error)[:200]}.") from None
        for name, each in slices.items():
            if each.get_dtype() not in _DTYPES:
                raise DatasetRefused(
                    f"The tensor {name} is {each.get_dtype()}, which numpy lacks; save it as {_DTYPES[0]}."
                )
        super().__init__(slices, {name: tuple(each.get_shape()) for name, each in slices.items()}, limits)


_DTYPES = ("F32", "F64", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
