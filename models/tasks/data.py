"""Data sets on disk: found, checked, fetched or imported. Needs neither torch nor a server.

    ./run data                                     # which are here
    ./run data fetch mnist --data DIR              # from public hosts, checked
    ./run data import mnist FOLDER --data DIR      # from a folder of yours, checked

In containers, and wherever the server is installed, `gradsmith-server data` is the same. DIR is the `--data` folder of
the service.

`digits`, `breast-cancer` and `wine` come with scikit-learn; CIFAR-10 is in `models.tasks.cifar`. `mnist` is four idx
files in `<data folder>/datasets/mnist`, gzipped or not; what is checked is the md5 of the UNCOMPRESSED bytes, because
the same file has been gzipped anew many times.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import logging
import math
import os
import shlex
import sys
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import DatasetCorrupt, DatasetMissing, DownloadFailed, ModelsError

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
"""Called with (file name, bytes so far, bytes in all or None)."""


@dataclass(frozen=True)
class IdxFile:
    """One idx file: its name without `.gz`, and the md5 of its uncompressed bytes."""

    name: str
    md5: str


@dataclass(frozen=True)
class DataSet:
    """A data set that kinds of families name (`models.families.DATASETS`): all that the commands and `doctor` do.

    check: raises DatasetMissing or DatasetCorrupt when it cannot be used from this data folder
    state: says in a few words whether it is there, beginning with `ready` where it is; quicker than `check`, which
        reads everything
    fetch: downloads it into the data folder, None where it cannot be; returns where it is
    bring: copies it from a folder into the data folder (data folder, source), None where it cannot be
    lacking: says what is missing in this data folder and which command brings it, None where nothing is; a job that
        needs it is refused then. None where a worker fetches it by itself, or it comes with a library
    alternative: whether it is another form of a data set, which nobody misses
    """

    name: str
    check: Callable[[Path], None]
    state: Callable[[Path], str]
    fetch: Callable[[Path, Progress], Path] | None = None
    bring: Callable[[Path, Path], Path] | None = None
    lacking: Callable[[Path], str | None] | None = None
    alternative: bool = False

    def ready(self, data_dir: Path) -> bool:
        return self.state(data_dir).startswith("ready")


def known() -> dict[str, DataSet]:
    """Every data set that some kind of family may need, by name; without those of a plug-in whose module is broken."""
    from models.families import DATASETS  # importing them runs plug-ins, which may import this module

    found: dict[str, DataSet] = {}
    for name, place in DATASETS.items():
        module, _, attribute = place.partition(":")
        try:
            found[name] = getattr(importlib.import_module(module), attribute)
        except Exception:  # it may raise anything, and the others are not its concern
            logger.exception("The data set %s (%s) cannot be looked for.", name, place)
    return found


MNIST = {
    "train_images": IdxFile("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
    "train_labels": IdxFile("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
    "test_images": IdxFile("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
    "test_labels": IdxFile("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
}
MNIST_HOSTS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
DOWNLOAD_TIMEOUT_SECONDS = 20.0
_CHUNK_BYTES = 1 << 16
# A gzip of 1 MB can hold 1 GB; no file of ours is larger than this when unpacked.
_LARGEST_BYTES = 64 * 2**20


def mnist_folder(data_dir: Path) -> Path:
    """Where the four files of MNIST are looked for, and where `fetch` and `import` put them."""
    return data_dir / "datasets" / "mnist"


def load_mnist(
    data_dir: Path | None, *, download: bool = True, progress: Progress | None = None
) -> dict[str, NDArray[np.uint8]]:
    """MNIST as `train_images` (60000, 784), `train_labels` (60000,), `test_images` (10000, 784), `test_labels`.

    Missing files are downloaded when `download` is set. Raises DatasetMissing (with the folder and the files that
    are not there) and DatasetCorrupt.
    """
    if data_dir is None:
        raise DatasetMissing(
            "The data set mnist needs a data folder: set GRADSMITH_DATA_DIR to one and bring it there with "
            "`./run data fetch mnist` (or `gradsmith-server data fetch mnist`)."
        )
    folder = mnist_folder(data_dir)
    missing = [file for file in MNIST.values() if _present(folder, file) is None]
    if missing:
        if not download:
            raise _missing(folder, missing)
        fetch_mnist(data_dir, progress=progress)
    return {part: _parsed(file, _checked(folder, file)) for part, file in MNIST.items()}


def fetch_mnist(
    data_dir: Path,
    *,
    hosts: tuple[str, ...] = MNIST_HOSTS,
    progress: Progress | None = None,
    timeout_seconds: float = DOWNLOAD_TIMEOUT_SECONDS,
) -> Path:
    """Download the files that are missing, check them and put each in its place at once. Returns the folder."""
    folder = mnist_folder(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for file in MNIST.values():
        if _present(folder, file) is None:
            write_atomically(folder / file.name, _downloaded(folder, file, hosts, progress, timeout_seconds))
    return folder


def import_mnist(data_dir: Path, source: Path) -> Path:
    """Copy the four files from the folder `source` (gzipped or not), checked first. Returns the folder."""
    missing = [file for file in MNIST.values() if _present(source, file) is None]
    if missing:
        raise _missing(source, missing, advice="Name the folder that holds them")
    checked = {file: _checked(source, file) for file in MNIST.values()}
    folder = mnist_folder(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in checked.items():
        write_atomically(folder / file.name, content)
    return folder


def _present(folder: Path, file: IdxFile) -> Path | None:
    return next((path for path in (folder / file.name, folder / f"{file.name}.gz") if path.is_file()), None)


def _missing(folder: Path, files: list[IdxFile], advice: str | None = None) -> DatasetMissing:
    names = ", ".join(f"{file.name}[.gz]" for file in files)
    if advice is None:
        # The folder in full: the reader's own GRADSMITH_DATA_DIR, or ./var, need not be the one looked in here.
        end = f"--data {shlex.quote(str(folder.parent.parent.resolve()))}"
        advice = (
            f"Bring them with `./run data fetch mnist {end}`, or, without a network, with "
            f"`./run data import mnist FOLDER {end}` (where there is no ./run: "
            f"`gradsmith-server data import mnist FOLDER {end}`)"
        )
    return DatasetMissing(f"The data set mnist is not complete: {folder} lacks {names}. {advice}.")


def _checked(folder: Path, file: IdxFile) -> bytes:
    """The file's uncompressed bytes; DatasetCorrupt when they are not the published ones."""
    path = _present(folder, file)
    if path is None:
        raise _missing(folder, [file])
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = _unzipped(content, str(path))
    return _verified(content, file, str(path))


def _verified(content: bytes, file: IdxFile, origin: str) -> bytes:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != file.md5:
        raise DatasetCorrupt(
            f"{origin} is not MNIST's {file.name}: its uncompressed md5 is {found}, not {file.md5}. "
            f"Delete it and fetch or import it again."
        )
    return content


def _unzipped(content: bytes, origin: str) -> bytes:
    try:
        unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        unpacked = unpacker.decompress(content, _LARGEST_BYTES)
    except zlib.error as error:
        raise DatasetCorrupt(f"{origin} is not a whole gzip file ({error}). Delete it and fetch it again.") from error
    return unpacked


def _parsed(file: IdxFile, content: bytes) -> NDArray[np.uint8]:
    """idx: two zero bytes, the type (8: unsigned byte), the number of dimensions, each as a big-endian uint32."""
    dimensions = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=dimensions, offset=4).astype(int)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
    if values.size != math.prod(shape):
        raise DatasetCorrupt(f"{file.name} announces the shape {tuple(shape)} and holds {values.size} numbers.")
    return values.reshape(int(shape[0]), -1).squeeze() if dimensions == 1 else values.reshape(int(shape[0]), -1)


def _downloaded(
    folder: Path, file: IdxFile, hosts: tuple[str, ...], progress: Progress | None, timeout_seconds: float
) -> bytes:
    reasons = []
    for host in hosts:
        url = f"{host}{file.name}.gz"
        try:
            content = downloaded(url, file.name, progress, timeout_seconds=timeout_seconds)
            return _verified(_unzipped(content, url), file, url)
        except (OSError, DatasetCorrupt) as error:
            reasons.append(f"{url}: {error}")
    lacking = [one for one in MNIST.values() if _present(folder, one) is None]
    raise DownloadFailed(str(_missing(folder, lacking)), reasons)


def downloaded(
    url: str,
    name: str,
    progress: Progress | None,
    *,
    timeout_seconds: float = DOWNLOAD_TIMEOUT_SECONDS,
    most: int = _LARGEST_BYTES,
) -> bytes:
    """What is at this address, `most` bytes at most. Raises OSError."""
    return b"".join(_chunks(url, name, progress, timeout_seconds, most))


def _chunks(url: str, name: str, progress: Progress | None, timeout_seconds: float, most: int) -> Iterator[bytes]:
    with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        received = 0
        while chunk := response.read(_CHUNK_BYTES):
            received += len(chunk)
            if received > most:
                raise OSError(f"the answer is larger than {most} bytes")
            if progress is not None:
                progress(name, received, total)
            yield chunk


def write_atomically(path: Path, content: bytes) -> None:
    """All of the file or none of it: a crash leaves at most a hidden temporary file, never half a data set."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _with_scikit_learn(name: str) -> DataSet:
    """A data set that comes with scikit-learn."""

    def check(_: Path) -> None:
        if importlib.util.find_spec("sklearn") is None:
            raise DatasetMissing(
                f"The data set {name} comes with scikit-learn, which is not installed. pip install scikit-learn"
            )

    return DataSet(name, check, lambda _: "ready (comes with scikit-learn)")


def _mnist_check(data_dir: Path) -> None:
    load_mnist(data_dir, download=False)


def _mnist_state(data_dir: Path) -> str:
    folder = mnist_folder(data_dir)
    lacking = [file.name for file in MNIST.values() if _present(folder, file) is None]
    return f"{'ready in' if not lacking else 'lacks ' + ', '.join(lacking) + ' in'} {folder}"


DIGITS, BREAST_CANCER, WINE = map(_with_scikit_learn, ("digits", "breast-cancer", "wine"))
MNIST_SET = DataSet(
    "mnist",
    _mnist_check,
    _mnist_state,
    fetch=lambda data_dir, progress: fetch_mnist(data_dir, progress=progress),
    bring=import_mnist,
)


# --- command line -----------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """`list` (or nothing), `fetch NAME`, `import NAME FOLDER`; into --data, else GRADSMITH_DATA_DIR, else ./var."""
    parser = argparse.ArgumentParser(
        prog="gradsmith-server data", description="Bring the data sets that families use. Alone, it lists them."
    )
    about_data = "data folder, as in `serve --data` (default: GRADSMITH_DATA_DIR or ./var)"
    parser.add_argument("--data", type=Path, default=None, metavar="DIR", help=about_data)
    # Also behind the command, where people write it. Without a default of its own: that would undo the one before.
    anywhere = argparse.ArgumentParser(add_help=False)
    anywhere.add_argument("--data", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=about_data)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", parents=[anywhere], help="which data sets are here")
    fetch = commands.add_parser("fetch", parents=[anywhere], help="download and check a data set")
    sets = known()
    fetch.add_argument("name", choices=[name for name, one in sets.items() if one.fetch])
    bring = commands.add_parser("import", parents=[anywhere], help="copy a data set from a folder, checked")
    bring.add_argument("name", choices=[name for name, one in sets.items() if one.bring])
    bring.add_argument("path", type=Path, metavar="FOLDER")
    chosen = parser.parse_args(arguments)
    data_dir = chosen.data or Path(os.environ.get("GRADSMITH_DATA_DIR", "var"))
    try:
        if chosen.command in (None, "list"):
            widest = max(len(name) for name in sets)
            for name, one in sets.items():
                print(f"{name:{widest}}  {one.state(data_dir)}")
            return 0
        one = sets[chosen.name]
        if chosen.command == "fetch":
            assert one.fetch is not None
            print(f"{one.name} is in {one.fetch(data_dir, _terminal_progress())}")
        else:
            assert one.bring is not None
            print(f"{one.name} is in {one.bring(data_dir, chosen.path)}")
    except ModelsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _terminal_progress() -> Progress:
    """One line a file, rewritten in place on a terminal and printed once otherwise."""
    live = sys.stderr.isatty()

    def show(name: str, received: int, total: int | None) -> None:
        done = total is not None and received >= total
        if live or done:
            share = f"{100 * received / total:3.0f} %" if total else f"{received / 1e6:.1f} MB"
            print(f"\r{name}  {share}" if live else f"{name}  {share}", end="\n" if done else "", file=sys.stderr)

    return show


if __name__ == "__main__":
    sys.exit(main())
