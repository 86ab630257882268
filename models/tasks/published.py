"""Data sets that are files of known bytes, checked by SHA-256: in `<data folder>/datasets/<name>`, where `import` puts
them."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from models.errors import DatasetCorrupt, DatasetMissing
from models.tasks.data import DataSet, write_atomically


@dataclass(frozen=True)
class PublishedFile:
    """One file: its name, and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class PublishedFiles:
    """A data set of files that users bring; there is no host to download them from."""

    name: str
    files: tuple[PublishedFile, ...]

    def folder(self, data_dir: Path) -> Path:
        """Where the files are looked for, and where `bring` puts them."""
        return data_dir / "datasets" / self.name

    def missing(self, data_dir: Path) -> str | None:
        """What is missing and how to bring it, without reading a file; None where nothing is."""
        lacking = [file.name for file in self.files if not (self.folder(data_dir) / file.name).is_file()]
        if not lacking:
            return None
        end = f"--data {shlex.quote(str(data_dir.resolve()))}"
        return (
            f"The data set {self.name} is not complete: {self.folder(data_dir)} lacks {', '.join(lacking)}. Bring it "
            f"with `./run data import {self.name} FOLDER {end}` (where there is no ./run: `gradsmith-server data "
            f"import {self.name} FOLDER {end}`)."
        )

    def read(self, data_dir: Path | None, name: str) -> bytes:
        """A file's bytes, checked. Raises DatasetMissing and DatasetCorrupt."""
        if data_dir is None:
            raise DatasetMissing(
                f"The data set {self.name} needs a data folder: set GRADSMITH_DATA_DIR to one and bring it there with "
                f"`gradsmith-server data import {self.name} FOLDER`."
            )
        self._require(data_dir)
        [file] = [file for file in self.files if file.name == name]
        return _verified(self.folder(data_dir) / name, file)

    def check(self, data_dir: Path) -> None:
        """Read everything. Raises DatasetMissing and DatasetCorrupt."""
        for file in self.files:
            self.read(data_dir, file.name)

    def state(self, data_dir: Path) -> str:
        lacking = [file.name for file in self.files if not (self.folder(data_dir) / file.name).is_file()]
        return f"{'ready in' if not lacking else 'lacks ' + ', '.join(lacking) + ' in'} {self.folder(data_dir)}"

    def bring(self, data_dir: Path, source: Path) -> Path:
        """Copy the files from `source` or its subfolders, checked first. Returns the folder."""
        found = {file: _found(source, file.name) for file in self.files}
        lacking = [file.name for file, path in found.items() if path is None]
        if lacking:
            raise DatasetMissing(
                f"{source} and its folders lack {', '.join(lacking)} of the data set {self.name}. Name the folder that "
                f"holds them."
            )
        contents = {file.name: _verified(path, file) for file, path in found.items() if path is not None}
        folder = self.folder(data_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
        return folder

    def data_set(self) -> DataSet:
        """What the commands and `doctor` know of it."""
        return DataSet(self.name, self.check, self.state, bring=self.bring, lacking=self.missing)

    def _require(self, data_dir: Path) -> None:
        if (wrong := self.missing(data_dir)) is not None:
            raise DatasetMissing(wrong)


def _found(source: Path, name: str) -> Path | None:
    return next((path for path in (source / name, *sorted(source.glob(f"*/{name}"))) if path.is_file()), None)


def _verified(path: Path, file: PublishedFile) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DatasetCorrupt(
            f"{path} is not the published {file.name}: its SHA-256 is {found}, not {file.sha256}. Delete it and import "
            f"it again."
        )
    return content
