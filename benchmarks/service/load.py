"""A load generator that takes little of the cores it shares with what it measures: asyncio protocols under uvloop, the
parser of httptools, requests that are bytes beforehand. `python -m benchmarks.service.load` reads a `Load` as JSON and
answers with a `Measured`; `run` is the other end.

Closed loop: each connection sends its next request when it has the whole answer to the last one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from benchmarks.core.environment import ROOT

PATIENCE_SECONDS = 30.0  # for the answers that are still out when the time is up


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    def encoded(self, host: str) -> bytes:
        body = self.body.encode()
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Load:
    """`requests` in turn over all `connections` for `seconds`, after `warm_up_seconds` that are not counted: the first
    connection sends the first and, after as many as there are connections, its next."""

    url: str
    requests: Sequence[Request]
    connections: int = 16
    seconds: float = 5.0
    warm_up_seconds: float = 0.5


@dataclass(frozen=True)
class Measured:
    """`milliseconds`: of each answer that came within the time, sorted. `statuses`: of all answers.
    `own_seconds`: processor time of the generator itself."""

    seconds: float
    milliseconds: list[float]
    statuses: dict[str, int]
    bytes_received: int
    own_seconds: float

    @property
    def rate(self) -> float:
        return len(self.milliseconds) / self.seconds

    def percentile(self, share: float) -> float:
        """share: 0.99 for the 99th; the nearest rank."""
        if not self.milliseconds:
            return float("inf")
        return self.milliseconds[min(len(self.milliseconds) - 1, int(share * len(self.milliseconds)))]

    def summary(self, accepted: Sequence[int]) -> dict[str, Any]:
        """What is kept of it. Raises RuntimeError when there were answers of other statuses, or none."""
        bad = {status: count for status, count in self.statuses.items() if int(status) not in accepted}
        if bad or not self.milliseconds:
            raise RuntimeError(f"answers that were not expected: {bad or 'none came'}; in all {self.statuses}")
        return {
            "rate": self.rate,
            "p50": self.percentile(0.5),
            "p99": self.percentile(0.99),
            "worst": self.milliseconds[-1],
            "own_share": self.own_seconds / self.seconds,
        }


def run(load: Load) -> Measured:
    """Raises RuntimeError with the generator's words when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.service.load"],
        input=json.dumps(asdict(load)), capture_output=True, text=True, cwd=ROOT, check=False,
        timeout=load.seconds + load.warm_up_seconds + PATIENCE_SECONDS + 30,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the load generator failed: {done.stderr[-1000:]}")
    return Measured(**json.loads(done.stdout))


def main() -> int:
    import httptools
    import uvloop

    given = json.loads(sys.stdin.read())
    load = Load(**given | {"requests": [Request(**each) for each in given["requests"]]})
    address = urlsplit(load.url)
    host, port = address.hostname or "", address.port or 80
    requests = [each.encoded(address.netloc) for each in load.requests]
    sent_at: list[float] = []
    took: list[float] = []
    statuses: Counter[int] = Counter()
    received = 0
    open_until = 0.0

    class Connection(asyncio.Protocol):
        def __init__(self, index: int) -> None:
            self.next, self.began, self.ended = index, 0.0, asyncio.get_running_loop().create_future()
            self.parser = httptools.HttpResponseParser(self)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)  # uvloop's own class
            self._send()

        def _send(self) -> None:
            self.began = time.perf_counter()
            if self.began >= open_until:
                self.transport.close()
                return
            self.transport.write(requests[self.next % len(requests)])
            self.next += load.connections

        def data_received(self, data: bytes) -> None:
            nonlocal received
            received += len(data)
            self.parser.feed_data(data)

        def on_message_complete(self) -> None:
            now = time.perf_counter()
            sent_at.append(self.began)
            took.append(now - self.began)
            statuses[self.parser.get_status_code()] += 1
            keep = self.parser.should_keep_alive()
            self.parser = httptools.HttpResponseParser(self)
            if keep:
                self._send()
            else:
                self.transport.close()

        def connection_lost(self, error: Exception | None) -> None:
            if not self.ended.done():
                self.ended.set_result(error)

    async def everything() -> None:
        nonlocal open_until
        loop = asyncio.get_running_loop()
        open_until = time.perf_counter() + load.warm_up_seconds + load.seconds

        async def client(index: int) -> None:
            while time.perf_counter() < open_until:  # a server that closes a connection gets another
                _, connection = await loop.create_connection(lambda: Connection(index), host, port)
                await connection.ended

        async with asyncio.timeout(load.warm_up_seconds + load.seconds + PATIENCE_SECONDS):
            await asyncio.gather(*(client(index) for index in range(load.connections)))

    gc.disable()  # nothing here makes cycles, and a pause would be the servers' fault
    before = time.perf_counter()
    uvloop.run(everything())
    start, end = before + load.warm_up_seconds, before + load.warm_up_seconds + load.seconds
    within = sorted(1000 * each for began, each in zip(sent_at, took, strict=True) if start <= began + each <= end)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    measured = Measured(
        load.seconds,
        within,
        {str(status): count for status, count in statuses.items()},
        received,
        usage.ru_utime + usage.ru_stime,
    )
    json.dump(asdict(measured), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
