"""The text of an API key: `gs_<id>_<secret>`."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

SECRET_DIGITS = 48  # hexadecimal: 192 bits
_ID_DIGITS = 32
_LENGTH = len("gs_") + _ID_DIGITS + 1 + SECRET_DIGITS
_FORM = re.compile(rf"gs_([0-9a-f]{{{_ID_DIGITS}}})_[0-9a-f]{{{SECRET_DIGITS}}}")


class MalformedToken(ValueError):
    """The text is no key; the message says why without showing any of it."""


@dataclass(frozen=True)
class Parsed:
    key_id: str  # `key_...`
    sha256: str  # of the whole token


def new_secret() -> str:
    return secrets.token_hex(SECRET_DIGITS // 2)


def derived_secret(token: str, salt: str) -> str:
    """The secret that whoever holds `token` can have made again, and nobody else: for a replayed POST /keys."""
    digest = hmac.new(token.encode(), salt.encode(), hashlib.sha256)
    return digest.hexdigest()[:SECRET_DIGITS]


def token_of(key_id: str, secret: str) -> str:
    return f"gs_{key_id.removeprefix('key_')}_{secret}"


def parse(token: str) -> Parsed:
    """Raises MalformedToken."""
    form = _FORM.fullmatch(token)
    if form is None:
        if token.startswith("gs_") and len(token) != _LENGTH:
            cut = "was it cut off" if len(token) < _LENGTH else "is there more in it than the key"
            raise MalformedToken(f"That key has {len(token)} characters, and keys have {_LENGTH}: {cut}?")
        raise MalformedToken("That is no key of the form gs_<id>_<secret>.")
    return Parsed(f"key_{form[1]}", sha256_of(token))


def sha256_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
