"""Uploads that are cut at random bytes, on a service in a process of its own: nothing of them may be left behind.

    ./run bench cut_uploads [--cuts 200] [--seed 1] [--dry]

Tables (CSV, npz, safetensors) and weights files are cut in four ways: the
connection is closed, or reset, before the bytes that `Content-Length` announced have come; a chunked body breaks off;
or the request is whole and its file is not. After each cut the rows of the database and the files of the data folder
are counted. In the end every file is sent whole, and must be kept. Exits with 1 where something was left behind, or
where the server answered with a success or with 500.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
from safetensors.numpy import save
from sqlalchemy import func, select

from app.store.tables import DatasetRow, OptimizerRow, WeightsRow
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from workshop.served import Service, service
from workshop.weights import weights_file

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
WAYS = ("closed", "reset", "chunks broken off", "sent as whole")
SETTLED_SECONDS = 60.0
"""How long what was left behind may stay: a server notices a closed connection within milliseconds, on a machine that
does much else within seconds."""

LAST_PAUSE_SECONDS = 1.0
"""After the last cut, before it is looked once more."""


@dataclass(frozen=True)
class File:
    """What is sent, and to which address."""

    name: str
    content: bytes
    address: str


@dataclass
class Outcome:
    """What came of one kind of file, cut in one way."""

    cuts: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    left: int = 0


def files(random_: np.random.Generator) -> list[File]:
    """One of each kind, of some 100 kB."""
    rows = 3000
    numbers = random_.normal(size=(rows, 4)).round(6)
    group = random_.integers(0, 60, rows)
    lines = [
        "customer,a,b,c,target",
        *(f"c{g},{','.join(map(str, row))}" for g, row in zip(group, numbers, strict=True)),
    ]
    columns = {"customer": group, **{name: numbers[:, place] for place, name in enumerate(("a", "b", "c", "target"))}}
    packed = io.BytesIO()
    np.savez_compressed(packed, **columns)
    made = {
        "CSV": "\n".join(lines).encode() + b"\n",
        "npz": packed.getvalue(),
        "safetensors": save({name: np.ascontiguousarray(values) for name, values in columns.items()}),
    }
    query = "target=target&group=customer"
    return [
        *(File(name, content, f"/datasets?name={name.lower()}&{query}") for name, content in made.items()),
        File("weights", weights_file({"kind": "lstm", "hidden_size": 60}), "/optimizers?family=quadratic"),
    ]


def left_behind(over: Service) -> list[str]:
    """Rows and files that only a whole upload may leave."""
    with over.database.read() as session:
        rows = [
            f"{row.__tablename__}: {count}"
            for row in (DatasetRow, OptimizerRow, WeightsRow)
            if (count := session.scalar(select(func.count()).select_from(row)))
        ]
    folder = over.settings.data_dir / "datasets"
    return rows + [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def cut(over: Service, file: File, way: str, end: int) -> str:
    """Send the first `end` bytes in that way. Returns the status of the answer, or what became of the connection."""
    where = urlsplit(over.url)
    sha256 = hashlib.sha256(file.content).hexdigest()
    address = f"{file.address}&sha256={sha256}" if way == "sent as whole" else file.address
    announced = {
        "closed": f"Content-Length: {len(file.content)}",
        "reset": f"Content-Length: {len(file.content)}",
        "chunks broken off": "Transfer-Encoding: chunked",
        "sent as whole": f"Content-Length: {end}",
    }[way]
    head = f"POST {quote(address, safe='/?&=')} HTTP/1.1\r\nHost: {where.netloc}\r\n"
    head += f"Content-Type: application/octet-stream\r\n{announced}\r\n\r\n"
    part = file.content[:end]
    body = b"".join(_chunked(part)) if way == "chunks broken off" else part
    with socket.create_connection((where.hostname or "", where.port or 80), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        if way == "sent as whole":
            answer = connection.recv(65_536)
            return answer[9:12].decode() if answer else "no answer"
        if way == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return "gone"


def _chunked(content: bytes, size: int = 8192) -> Iterator[bytes]:
    """Whole chunks, and a last one that announces more than comes."""
    for first in range(0, len(content), size):
        piece = content[first : first + size]
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    yield b"ffff\r\nhalf"


def settled(over: Service) -> list[str]:
    """What is left behind once the server has had time to notice."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while (found := left_behind(over)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def measured(over: Service, cuts: int, seed: int, say: Callable[[str], object] = print) -> tuple[list[str], bool]:
    """The section for RESULTS.md, and whether nothing was left behind."""
    drawn = random.Random(seed)
    every = files(np.random.default_rng(seed))
    table = {(file.name, way): Outcome() for file in every for way in WAYS}
    for number in range(cuts):
        file, way = every[number % len(every)], WAYS[number // len(every) % len(WAYS)]
        end = drawn.randrange(len(file.content))
        outcome = table[file.name, way]
        outcome.cuts += 1
        outcome.answers[cut(over, file, way, end)] += 1
        if left := settled(over):
            outcome.left += 1
            say(f"cut {number}: {file.name} {way} at byte {end:,} left {', '.join(left)}")
    time.sleep(LAST_PAUSE_SECONDS)
    late = left_behind(over)
    whole = [_whole(over, file) for file in every]
    bad = [answer for outcome in table.values() for answer in outcome.answers if answer not in ("gone", "422")]
    clean = not any(outcome.left for outcome in table.values()) and not (bad or late) and set(whole) == {"201"}
    lines = [
        "## Uploads cut at random bytes",
        "",
        f"{cuts} uploads were cut, and {'nothing was left behind' if clean else 'NOT ALL LEFT NOTHING'}: no row and no "
        f"file, looked for after each. Then each file was sent whole and kept ({', '.join(whole)}).",
        "",
        "| file | bytes | " + " | ".join(WAYS) + " | left something |",
        "|---|---|" + "---|" * (len(WAYS) + 1),
    ]
    for file in every:
        cells = [_told(table[file.name, way]) for way in WAYS]
        left = sum(table[file.name, way].left for way in WAYS)
        lines.append(f"| {file.name} | {len(file.content):,} | {' | '.join(cells)} | {left} |")
    return [*lines, ""], clean


def _told(outcome: Outcome) -> str:
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(outcome.answers.items()) if status != "gone")
    return f"{outcome.cuts} cut{f' ({answers})' if answers else ''}"


def _whole(over: Service, file: File) -> str:
    headers = {"Content-Type": "application/octet-stream"}
    with httpx.Client(base_url=over.url, timeout=120) as client:
        return str(client.post(file.address, content=file.content, headers=headers).status_code)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench cut_uploads", description="Cut uploads at random bytes.")
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    how = f"`./run bench cut_uploads --cuts {options.cuts} --seed {options.seed}`, {time.strftime('%Y-%m-%d')}, "
    how += f"{machine()}; load average before: {os.getloadavg()[0]:.1f}."
    with service(None, workers=0) as over:
        found, clean = measured(over, options.cuts, options.seed)
    section = [found[0], "", how, *found[1:]]
    print("\n".join(section))
    if not options.dry:
        core_report.write(RESULTS, section[:-1], ("<!-- cut_uploads -->", "<!-- end of cut_uploads -->"))
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
