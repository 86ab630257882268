"""A document's shell blocks, run as a reader would: one shell, line after line, with the real curl."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TRACE = "%{stderr}@@ %{method} %{http_code} %{url_effective}\\n"
_REQUEST = re.compile(r"^@@ ([A-Z]+) (\d{3}) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    method: str
    status: int
    url: str


@dataclass(frozen=True)
class Line:
    """One command as the shell takes it: its quotes may span lines of text."""

    text: str

    @property
    def promised(self) -> int:
        """The status behind its `#`; 200 where there is none."""
        found = re.search(r"  # (\d{3})\b[^'\"]*$", self.text)
        return int(found[1]) if found else 200


def steps(document: str) -> Iterator[Line | str]:
    """The lines of its `sh` blocks, and between them what happens `<!-- meanwhile: ... -->`, in order."""
    for block, meanwhile in re.findall(r"```sh\n(.*?)```|<!-- meanwhile: (.*?) -->", document, re.DOTALL):
        if meanwhile:
            yield meanwhile
            continue
        text = ""
        for line in block.splitlines(keepends=True):
            text += line
            if text.count("'") % 2 == 0:
                yield Line(text.rstrip("\n"))
                text = ""
        assert not text, f"a quote stays open: {text}"


class Reader:
    """A bash that remembers its variables, in `folder`; what curl asked and got is written down."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._trace = folder / "trace"
        (folder / "home").mkdir()
        (folder / "home" / ".curlrc").write_text(f'write-out = "{_TRACE}"\nmax-time = 30\nnoproxy = "*"\n')
        self._errors = self._trace.open("wb")
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-o", "pipefail"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=folder, text=True,
            env={**os.environ, **environment, "CURL_HOME": str(folder / "home")},
        )  # fmt: skip

    def run(self, text: str) -> tuple[str, list[Request]]:
        """What the command printed, and what curl did for it."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        before = self._trace.stat().st_size
        self._shell.stdin.write(f"{text}\necho\necho =end= $?\n")
        self._shell.stdin.flush()
        printed: list[str] = []
        for line in self._shell.stdout:
            if line.startswith("=end="):
                break
            printed.append(line)
        else:
            raise AssertionError(f"the shell ended at {text!r}: {self._trace.read_text()[-2000:]}")
        said = self._trace.read_bytes()[before:].decode(errors="replace")
        return "".join(printed), [Request(method, int(code), url) for method, code, url in _REQUEST.findall(said)]

    def close(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(30)
        assert self._shell.stdout is not None
        self._shell.stdout.close()
        self._errors.close()
