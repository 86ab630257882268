"""`gradsmith-server serve`: one process that starts, watches and ends all the others.

    Valkey (unless REDIS_URL) -> migrations -> N workers and the API processes -> wait for /readyz

Every child is in a session of its own, so Ctrl-C reaches the supervisor alone, and dies with it, so that even SIGKILL
of the supervisor leaves nothing behind. What children print goes to `<data>/logs/`; the terminal stays readable.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from app import private
from app.auth import refuse_without_keys
from app.host import embedded
from app.host.server import bind, url_of
from app.host.tether import tethered
from app.metrics.instruments import SHARED_FOLDER
from app.settings import Settings
from app.store.sessions import Database
from models.machine import usable_cpus

logger = logging.getLogger("gradsmith.serve")

READY_TIMEOUT_SECONDS = 300.0
"""For a machine that does much else: an API that has ended is noticed at once."""
POLL_SECONDS = 0.1
HEALTHY_AFTER_SECONDS = 30.0
LONGEST_BACKOFF_SECONDS = 30.0
REFUSED = 2  # the exit status of our programs when they say in one sentence why they do not run
LARGEST_LOG_BYTES = 20 * 2**20
# A worker has its child write a checkpoint and hand the job back, and kills it after workers.main.KILL_AFTER_SECONDS;
# the API ends its open streams; Valkey flushes its file.
WORKER_GRACE_SECONDS, API_GRACE_SECONDS, STORE_GRACE_SECONDS = 15.0, 4.0, 2.0


class ServeError(RuntimeError):
    """The service cannot start; the message says why and what to do."""


@dataclass
class Child:
    """One supervised process. `start` may be called again after it has ended; pauses between starts double.

    mend: called when the process has ended by itself, with what it wrote since its start; removes the cause where it
    knows one, and says in a sentence what it did (None: nothing)
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    grace_seconds: float
    pass_fds: tuple[int, ...] = ()
    mend: Callable[[str], str | None] | None = None
    log_start: int = 0  # bytes of `log` that the process did not write
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    backoff_seconds: float = 0.5
    restart_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Raises ServeError when its log cannot be written, OSError when no process can be made."""
        with _written(self.log.parent.parent):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            if self.log.exists() and self.log.stat().st_size > LARGEST_LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))
            output = self.log.open("ab")
        with output:
            self.log_start = os.fstat(output.fileno()).st_size
            self.process = subprocess.Popen(
                tethered(self.command),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.pass_fds,
            )
        self.started, self.restart_at = time.monotonic(), None

    def look_after(self) -> None:
        """Start the process again when it has ended, after a pause that doubles while it keeps ending."""
        if self.alive:
            self.turn_over_log()
            return
        now = time.monotonic()
        if self.restart_at is None:
            if now - self.started > HEALTHY_AFTER_SECONDS:
                self.backoff_seconds = 0.5
            self.restart_at = now + self.backoff_seconds
            self.mended()
            logger.warning(
                "%s ended (%s); starting it again in %.1f s. Its output: %s",
                self.name,
                self.how_it_ended(),
                self.backoff_seconds,
                self.log,
            )
            self.backoff_seconds = min(2 * self.backoff_seconds, LONGEST_BACKOFF_SECONDS)
        elif now >= self.restart_at:
            try:
                self.start()
            except (ServeError, OSError) as error:  # what still runs goes on; this one follows when the cause is gone
                logger.error("%s cannot start: %s; trying again in %.1f s", self.name, error, self.backoff_seconds)
                self.restart_at = now + self.backoff_seconds
                self.backoff_seconds = min(2 * self.backoff_seconds, LONGEST_BACKOFF_SECONDS)

    def mended(self) -> bool:
        """Whether what ended the process was found and removed, which is logged."""
        by_somebody = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)  # and not by what it met
        if self.mend is None or self.process is None or self.alive or self.process.returncode in by_somebody:
            return False
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(self.log_start)
            done = self.mend(log.read(LARGEST_LOG_BYTES).decode(errors="replace"))
            if done is not None:
                logger.warning("%s ended (%s): %s", self.name, self.how_it_ended(), done)
                return True
        return False

    def turn_over_log(self) -> None:
        """Begin its log again when it has grown large; the text so far is kept as `.log.1`. It appends, so its next
        line stands at the beginning."""
        with contextlib.suppress(OSError):  # a full disk is told by what writes there
            if self.log.stat().st_size > LARGEST_LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)
                self.log_start = 0

    def how_it_ended(self) -> str:
        code = self.process.returncode if self.process else None
        if code is None:
            return "not started"
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def why_it_ended(self) -> str:
        """For the terminal: its own sentence when it refused to run, else how it ended and the end of its log."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
        if lines and self.process is not None and self.process.returncode == REFUSED:
            return lines[-1].removeprefix("gradsmith-server: ")
        return "\n".join([f"{self.name} did not start ({self.how_it_ended()}); the end of {self.log}:", *lines[-8:]])

    def signal(self, signum: signal.Signals) -> None:
        if self.process is not None and self.alive:
            self.process.send_signal(signum)


@dataclass
class Supervisor:
    """Runs the service over `settings`, with `workers` worker processes, until SIGINT or SIGTERM."""

    settings: Settings
    workers: int
    api_processes: int = 1
    shared_metrics: dict[str, str] = field(default_factory=dict)
    port: int = 0  # once it is bound
    stop_signals: int = 0
    children: list[Child] = field(default_factory=list)

    def run(self) -> None:
        """Serve. Raises ServeError, EmbeddedStoreError, AddressError or UnguardedAddress when it cannot start."""
        refuse_without_keys(self.settings)  # a new data folder holds no key: said before anything starts
        data = self.settings.data_dir
        with only_one(data), self._signals():
            listener = bind(self.settings.host, self.settings.port)
            self.port = listener.getsockname()[1]
            record = data / "server.json"
            try:
                self._start(listener)
                if not self.stop_signals:
                    url = url_of(listener)
                    with _written(data):
                        _write_atomically(record, json.dumps({"url": url, "pid": os.getpid()}))
                    print(f"Gradsmith is ready at {url}  (Ctrl-C stops it)", flush=True)
                while not self.stop_signals:
                    for child in self.children:
                        child.look_after()
                    time.sleep(POLL_SECONDS)
            finally:
                listener.close()
                self._end()
                with contextlib.suppress(
                    OSError
                ):  # it may be why the service ends; doctor tells of a record that stays
                    record.unlink(missing_ok=True)

    def _start(self, listener: socket.socket) -> None:
        data = self.settings.data_dir
        if self.settings.redis_url is None:
            with _written(data):
                command = embedded.command(data)
            store = self._launch("valkey", command, STORE_GRACE_SECONDS)
            store.mend = partial(embedded.mend, data)
            try:
                self._wait_for_store(store)
            except embedded.EmbeddedStoreError as error:
                if self.stop_signals:
                    return
                raise ServeError(f"{error}\n{store.why_it_ended()}") from error
        if not self.stop_signals:
            self._migrate()
        if self.stop_signals:
            return
        with Database(self.settings.resolved_database_url) as database:
            refuse_without_keys(self.settings, database)
        for number in range(1, self.workers + 1):
            self._launch(f"worker-{number}", [sys.executable, "-P", "-m", "workers.main"], WORKER_GRACE_SECONDS)
        command = [sys.executable, "-P", "-m", "app.host.server", "--fd", str(listener.fileno())]
        # All of them accept from the one socket: whoever is free takes the next connection.
        if self.api_processes > 1:
            self._share_metrics()
        names = ["api"] if self.api_processes == 1 else [f"api-{number + 1}" for number in range(self.api_processes)]
        apis = [self._launch(name, command, API_GRACE_SECONDS, pass_fds=(listener.fileno(),)) for name in names]
        self._wait_until_ready(apis, listener)

    def _wait_for_store(self, store: Child) -> None:
        """Raises EmbeddedStoreError. A damaged append-only file is set aside, and the store started once more."""

        def alive() -> bool:
            return store.alive and not self.stop_signals

        try:
            embedded.wait_until_ready(self.settings.data_dir, alive)
        except embedded.EmbeddedStoreError:
            if self.stop_signals or not store.mended():
                raise
            store.start()
            embedded.wait_until_ready(self.settings.data_dir, alive)

    def _launch(self, name: str, command: Sequence[str], grace_seconds: float, pass_fds: tuple[int, ...] = ()) -> Child:
        # Workers side by side must not each calibrate their threads up to all of the CPUs.
        share = self.settings.worker_threads or max(1, usable_cpus() // max(1, self.workers))
        environment = {
            **os.environ,
            "GRADSMITH_DATA_DIR": str(self.settings.data_dir.resolve()),
            "GRADSMITH_HOST": self.settings.host,
            "GRADSMITH_PORT": str(self.port),
            "GRADSMITH_ROOT_PATH": self.settings.root_path or "",
            "GRADSMITH_WORKER_THREADS": str(share),
            "PYTHONUNBUFFERED": "1",
            **(self.shared_metrics if name.startswith("api") else {}),
        }
        log = self.settings.data_dir.resolve() / "logs" / f"{name}.log"
        child = Child(name, command, environment, log, grace_seconds, pass_fds)
        self.children.append(child)
        child.start()
        return child

    def _share_metrics(self) -> None:
        """A folder in which the API processes add up what each has counted, for whichever is asked."""
        folder = self.settings.data_dir.resolve() / "metrics"
        with _written(folder.parent):
            shutil.rmtree(folder, ignore_errors=True)  # counters begin anew with the service
            folder.mkdir(exist_ok=True)
        self.shared_metrics = {SHARED_FOLDER: str(folder)}

    def _migrate(self) -> None:
        # A process of its own: the supervisor then never holds a connection, and Ctrl-C ends it like any other child.
        migrate = self._launch("migrate", [sys.executable, "-P", "-m", "app.cli", "migrate"], STORE_GRACE_SECONDS)
        while migrate.alive and not self.stop_signals:
            time.sleep(POLL_SECONDS / 5)
        if self.stop_signals:
            return
        self.children.remove(migrate)
        if migrate.process is None or migrate.process.returncode != 0:
            raise ServeError(migrate.why_it_ended())

    def _wait_until_ready(self, apis: Sequence[Child], listener: socket.socket) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        host, port = url_of(listener).removeprefix("http://").rsplit(":", 1)
        while not self.stop_signals and not _answers(host.strip("[]"), int(port)):
            for api in apis:
                if not api.alive:
                    raise ServeError(api.why_it_ended())
            if time.monotonic() > deadline:
                raise ServeError(
                    f"the API was not ready after {READY_TIMEOUT_SECONDS:.0f} s; its output: {apis[0].log}"
                )
            time.sleep(POLL_SECONDS)

    def _end(self) -> None:
        """Workers first, while the stores still answer; then the API; Valkey last. A second Ctrl-C kills the rest."""
        groups = (("worker",), ("migrate", "api"), ("valkey",))
        for prefixes in groups:
            members = [child for child in self.children if child.name.startswith(prefixes)]
            for child in members:
                child.signal(signal.SIGTERM)
            deadline = time.monotonic() + max((child.grace_seconds for child in members), default=0.0)
            while any(child.alive for child in members):
                if time.monotonic() > deadline or self.stop_signals > 1:
                    for child in members:
                        child.signal(signal.SIGKILL)
                time.sleep(POLL_SECONDS / 5)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_signum: int, _frame: FrameType | None) -> None:
            self.stop_signals += 1

        heard = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` had it ignored: the terminal may close
            heard.append(signal.SIGHUP)
        before = {signum: signal.signal(signum, stop) for signum in heard}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


@contextlib.contextmanager
def only_one(data: Path) -> Iterator[None]:
    """Hold the data folder's lock: two Valkey servers on one append-only file would ruin it.

    Where the folder was not there and the block raises before anything else was put into it, it is gone again.
    """
    new = next((place for place in reversed((data, *data.parents)) if not place.exists()), None)
    with _written(data):
        private.make_folder(data)
        lock = (data / "serve.lock").open("a+")
    with lock:
        try:
            # The kernel lets go of it when this process ends, however it ends; children do not inherit it.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ServeError(
                f"process {lock.read().strip() or '(unknown)'} already serves the data folder {data.resolve()}; "
                "stop it, or choose another folder with --data"
            ) from None
        if not (data / "serve.lock").exists():  # its last holder took it back just now: the next would lock another
            raise ServeError(f"the data folder {data.resolve()} was removed meanwhile; start again")
        with _written(data):
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        try:
            yield
        except BaseException:
            if new is not None:
                _take_back(data, new)
            raise


def _take_back(data: Path, new: Path) -> None:
    """Remove the data folder that was just made, and those made for it from `new` on, if nothing but the lock is in
    it."""
    with contextlib.suppress(OSError):
        if [path.name for path in data.iterdir()] != ["serve.lock"]:
            return
        (data / "serve.lock").unlink()
        for folder in (data, *data.parents):
            folder.rmdir()
            if folder == new:
                return


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def _written(data: Path) -> Iterator[None]:
    """Say in a user's words that the data folder cannot be written. Raises ServeError."""
    try:
        yield
    except OSError as error:
        raise ServeError(private.unusable(data, error)) from error


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
