"""Data sets on disk: imported, fetched from a real HTTP server, missing, damaged."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from models.errors import DatasetCorrupt, DatasetMissing
from models.tasks import data
from models.tasks.data import IdxFile


def idx(array: np.ndarray) -> bytes:
    shape = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(monkeypatch):
    """Four idx files of MNIST's names and shapes, with 5 and 3 images, and their own checksums."""
    generator = np.random.default_rng(0)
    contents, files = {}, {}
    for part, file in data.MNIST.items():
        count = 5 if "train" in part else 3
        array = generator.integers(0, 256, (count, 28, 28)) if "images" in part else generator.integers(0, 10, count)
        contents[file.name] = idx(array)
        files[part] = IdxFile(file.name, hashlib.md5(contents[file.name]).hexdigest())
    monkeypatch.setattr(data, "MNIST", files)
    return contents


@pytest.fixture
def host(tmp_path, small_mnist):
    """A real web server that holds the gzipped files."""
    served = tmp_path / "served"
    served.mkdir()
    for name, content in small_mnist.items():
        (served / f"{name}.gz").write_bytes(gzip.compress(content))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", served
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetching_downloads_checks_and_reports(tmp_path, host, small_mnist):
    address, _ = host
    told = []
    folder = data.fetch_mnist(tmp_path, hosts=(address,), progress=lambda *what: told.append(what))
    assert {path.name for path in folder.iterdir()} == set(small_mnist)  # and no temporary file
    assert {name for name, received, total in told if received == total} == set(small_mnist)
    loaded = data.load_mnist(tmp_path, download=False)
    assert loaded["train_images"].shape == (5, 784)
    assert loaded["test_images"].shape == (3, 784)
    assert loaded["train_labels"].shape == (5,)
    assert idx(loaded["test_images"].reshape(3, 28, 28)) == small_mnist["t10k-images-idx3-ubyte"]


def test_the_second_host_serves_when_the_first_is_away(tmp_path, host):
    address, _ = host
    data.fetch_mnist(tmp_path, hosts=("http://127.0.0.1:9/", address), timeout_seconds=5)
    assert data.load_mnist(tmp_path, download=False)["train_labels"].shape == (5,)


def test_offline_the_error_names_the_folder_and_the_four_files(tmp_path, small_mnist):
    with pytest.raises(DatasetMissing) as caught:
        data.fetch_mnist(tmp_path, hosts=("http://127.0.0.1:9/",), timeout_seconds=2)
    message = str(caught.value)
    assert str(tmp_path / "datasets" / "mnist") in message
    assert all(name in message for name in small_mnist)
    assert "gradsmith-server data import mnist" in message
    assert not list((tmp_path / "datasets" / "mnist").iterdir())


def test_a_tampered_download_is_refused_and_nothing_is_written(tmp_path, host, small_mnist):
    address, served = host
    (served / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x01\x07"))
    with pytest.raises(DatasetMissing, match="md5"):
        data.fetch_mnist(tmp_path, hosts=(address,))
    there = {path.name for path in (tmp_path / "datasets" / "mnist").iterdir()}
    assert "train-labels-idx1-ubyte" not in there
    assert there < set(small_mnist)


@pytest.mark.parametrize("zipped", [True, False])
def test_importing_takes_files_gzipped_or_not(tmp_path, small_mnist, zipped):
    source = tmp_path / "mine"
    source.mkdir()
    for name, content in small_mnist.items():
        path = source / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    data.import_mnist(tmp_path / "data", source)
    assert data.load_mnist(tmp_path / "data", download=False)["train_images"].shape == (5, 784)


def test_importing_half_a_data_set_or_a_damaged_file_writes_nothing(tmp_path, small_mnist):
    source = tmp_path / "mine"
    source.mkdir()
    names = list(small_mnist)
    for name in names[:3]:
        (source / name).write_bytes(small_mnist[name])
    with pytest.raises(DatasetMissing, match=names[3]):
        data.import_mnist(tmp_path / "data", source)
    (source / names[3]).write_bytes(small_mnist[names[3]][:-1])
    with pytest.raises(DatasetCorrupt, match="md5"):
        data.import_mnist(tmp_path / "data", source)
    (source / names[3]).unlink()
    (source / f"{names[3]}.gz").write_bytes(gzip.compress(small_mnist[names[3]])[:20])
    with pytest.raises(DatasetCorrupt):
        data.import_mnist(tmp_path / "data", source)
    assert not (tmp_path / "data").exists()


def test_without_a_data_folder_the_advice_is_to_set_one():
    with pytest.raises(DatasetMissing, match="GRADSMITH_DATA_DIR"):
        data.load_mnist(None)


def test_the_command_line_needs_no_torch_and_says_what_is_missing(tmp_path):
    script = (
        "import sys; from models.tasks import data; folder = sys.argv[1]; "
        "assert data.main(['--data', folder, 'list']) == 0; "
        "code = data.main(['--data', folder, 'import', 'mnist', folder + '/nowhere']); "
        "assert 'torch' not in sys.modules, 'torch was imported'; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "train-images-idx3-ubyte" in done.stdout
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
