"""Where the server is and which key is sent: the environment first, then what `gradsmith login` kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gradsmith.cli.outcome import refuse
from gradsmith.client import Client


def kept_in() -> Path:
    """The file of `gradsmith login`."""
    folder = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "gradsmith" / "login.json"


def kept() -> dict[str, str]:
    """What it holds: `url` and `api_key`; nothing where there is no such file, or one that cannot be read."""
    try:
        found = json.loads(kept_in().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def keep(url: str, api_key: str) -> Path:
    """Write the file, for this user's eyes only."""
    path = kept_in()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": url, "api_key": api_key}, file)
    return part.replace(path)


def client() -> Client:
    """The client of the server that the environment names, or else `gradsmith login`. Ends with exit code 2 where
    that is no address."""
    own = kept()
    url = os.environ.get("GRADSMITH_URL") or own.get("url")
    # A key is for the server that it was kept with, and is sent to no other.
    key = os.environ.get("GRADSMITH_API_KEY") or (own.get("api_key") if url == own.get("url") else None)
    return client_of(url, key)


def client_of(url: str | None, key: str | None) -> Client:
    """The client of that server. Ends with exit code 2 where it is no address, or the key is none."""
    try:
        return Client(url, key)
    except ValueError as error:  # an address or a key that is none; it names the variable
        refuse(str(error))
