"""Compiling the kernel, once for each rule size, instruction set and compiler.

A compiled kernel is a shared library of 30 KB. It is looked for in the folder of kernels compiled beforehand, then in
the cache, and only then compiled (2-5 s for the 2x20 LSTM). Files are written under another name and renamed, so
that no process ever loads half a file. Of processes that want the same kernel at once, one compiles it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gradsmith.rules.kernels.native.targets import TARGETS, Target, targets_of
from gradsmith.rules.kernels.sizes import Program

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
HEADERS = tuple(sorted(SOURCES.glob("*.h")))
FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden"),
    # Products are added in one rounding; NaN and infinity keep their meaning, so nothing of -ffast-math beyond these.
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)
COMPILERS = ("c++", "g++", "clang++")
LIMIT_SECONDS = 300.0
CHOICES = ("auto", "off", *(target.name for target in TARGETS))


class BuildFailed(Exception):
    """No kernel could be had. The message says why and what to do; it is logged, not raised to users."""


class NotPrebuilt(BuildFailed):
    """The folder of kernels compiled beforehand lacks this one.

    of_other_sizes: it has kernels, none of them of these sizes; a folder is for the usual ones
    """

    of_other_sizes = False


@dataclass(frozen=True)
class BuildSettings:
    """Where kernels come from.

    instructions: "auto", "off", or the highest instruction set to use
    cache: folder of kernels compiled here; prebuilt: folder of kernels compiled beforehand
    compiler: a command, None: the first of c++, g++, clang++ on PATH
    """

    cache: Path
    instructions: str = "auto"
    prebuilt: Path | None = None
    compiler: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> BuildSettings:
        """GRADSMITH_NATIVE, GRADSMITH_CACHE_DIR, GRADSMITH_KERNELS and CXX. Raises ValueError for an unknown choice."""
        env = os.environ if environ is None else environ
        choice = env.get("GRADSMITH_NATIVE", "").strip().lower() or "auto"
        if choice not in CHOICES:
            raise ValueError(f"GRADSMITH_NATIVE is {choice!r}; choose one of {', '.join(CHOICES)}")
        cache = Path(env.get("GRADSMITH_CACHE_DIR") or Path(_user_cache(env), "gradsmith")) / "kernels"
        prebuilt = env.get("GRADSMITH_KERNELS")
        return cls(cache, choice, Path(prebuilt) if prebuilt else None, env.get("CXX") or None)


def _user_cache(env: Mapping[str, str]) -> Path:
    """The user's cache folder; one that is refused when it is used where the user has no home at all."""
    if env.get("XDG_CACHE_HOME"):
        return Path(env["XDG_CACHE_HOME"])
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # no HOME, and no entry in the password file
        return Path(os.devnull, ".cache")  # root could make a folder of any other name


def prebuilt(program: Program, target: Target, settings: BuildSettings) -> Path | None:
    """The kernel in the folder of kernels compiled beforehand; None where no folder is named.

    Raises NotPrebuilt when the folder has no kernel of these sizes made from this source, or cannot be read.
    """
    if settings.prebuilt is None:
        return None
    name = file_name(program, target)
    try:
        found = sorted(path.name for path in settings.prebuilt.iterdir())
        (settings.prebuilt / name).is_file()  # that the folder can be listed is not enough
    except OSError as error:
        raise NotPrebuilt(
            f"the folder {settings.prebuilt} that GRADSMITH_KERNELS names cannot be read ({error.strerror})"
        ) from error
    if name in found:
        return settings.prebuilt / name
    alike = [other for other in found if other.startswith(f"{program}-{target.name}-")]
    why = f"{alike[0]} is of another version or kind of machine" if alike else f"it has {', '.join(found) or 'nothing'}"
    lacking = NotPrebuilt(f"the folder {settings.prebuilt} that GRADSMITH_KERNELS names has no {name}: {why}")
    lacking.of_other_sizes = bool(found) and not any(other.startswith(f"{program}-") for other in found)
    raise lacking


def built_here(program: Program, target: Target, settings: BuildSettings, *, anew: bool = False) -> Path:
    """The kernel in the cache, compiled now if it is not there or is wanted anew. Raises BuildFailed."""
    compiler = find_compiler(settings)
    path = settings.cache / _key(compiler_version(compiler)) / file_name(program, target)
    try:
        missing = not path.is_file()
    except OSError as error:  # a home that is another user's
        raise BuildFailed(
            f"the folder {path.parent} for compiled kernels cannot be read ({error.strerror}); "
            f"set GRADSMITH_CACHE_DIR to one that can"
        ) from error
    if anew or missing:
        with _alone(path):
            if anew or not path.is_file():  # another process may have made it meanwhile
                place = path.parent
                logger.info("Compiling the %s kernel for %s into %s: once, some seconds", target.name, program, place)
                compile_kernel(program, target, compiler, path)
    return path


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for the process that makes this file, if one does. Where no file can be locked nobody waits."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # not on Windows

            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = path.with_suffix(".lock")
            file = held.enter_context(lock.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            held.callback(lock.unlink, missing_ok=True)
        yield


def file_name(program: Program, target: Target) -> str:
    """Says all that a kernel depends on, but for the compiler: sizes, instructions, source, flags and platform."""
    key = _key(
        *(path.read_text("utf-8") for path in (SOURCES / program.source, *HEADERS)),
        *FLAGS,
        *target.flags,
        sys.platform,
        platform.machine(),
    )
    return f"{program}-{target.name}-{key}.so"


def compile_kernel(program: Program, target: Target, compiler: str, path: Path) -> None:
    """Compile into `path`. Raises BuildFailed."""
    defines = {**program.defines, "WIDTH": target.width}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=".building-", suffix=".so", dir=path.parent)
    except OSError as error:
        raise BuildFailed(
            f"the folder {path.parent} for compiled kernels cannot be written ({error.strerror}); "
            f"set GRADSMITH_CACHE_DIR to one that can"
        ) from error
    os.close(handle)
    building = Path(name)
    command = [
        *(compiler, *FLAGS, *target.flags),
        *(f"-D{key}={value}" for key, value in defines.items()),
        *(f"-I{SOURCES}", str(SOURCES / program.source), "-o", str(building)),
    ]
    try:
        _run(command, LIMIT_SECONDS)
        building.chmod(0o755)
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)


def prebuild(
    folder: Path, programs: Iterable[Program], settings: BuildSettings, instructions: Iterable[str] = ()
) -> list[Path]:
    """Compile kernels of the given sizes into `folder`, as many at a time as there are CPUs.

    instructions: names of targets; default: all that this kind of machine has. Raises BuildFailed, OSError.
    """
    compiler = find_compiler(settings)
    folder.mkdir(parents=True, exist_ok=True)  # for everybody to read: workers run as another user than the builder
    names = set(instructions)
    jobs = [
        (program, target, folder / file_name(program, target))
        for program in programs
        for target in targets_of(None if names else platform.machine(), bfloat16=program.bfloat16)
        if not names or target.name in names
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: compile_kernel(job[0], job[1], compiler, job[2]), jobs))
    return [path for _, _, path in jobs]


def find_compiler(settings: BuildSettings) -> str:
    """The C++ compiler that the settings name, or the first on PATH. Raises BuildFailed."""
    candidates = (settings.compiler,) if settings.compiler else COMPILERS
    for name in candidates:
        found = shutil.which(name)
        if found:
            return found
    if settings.compiler:
        raise BuildFailed(f"the C++ compiler {settings.compiler!r} that CXX names is not on PATH")
    raise BuildFailed(
        "there is no C++ compiler; install one (Debian and Ubuntu: apt install g++; macOS: xcode-select --install), "
        "or set CXX to it, or GRADSMITH_KERNELS to a folder of compiled kernels"
    )


def compiler_version(compiler: str) -> str:
    """The compiler's path and what it says of itself. Raises BuildFailed."""
    return f"{compiler}\n{_run([compiler, '--version'], 30.0)}"


def _run(command: list[str], limit_seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"the C++ compiler {command[0]} did not run: {error}; set CXX to another one") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise BuildFailed(
            f"the C++ compiler {command[0]} failed with status {done.returncode} and said: {said[0][:300]}; "
            f"set CXX to another one"
        )
    return done.stdout


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
