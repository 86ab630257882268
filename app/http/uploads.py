"""Which requests bring a file: their bodies are streamed to their endpoint, which has limits of its own."""

from __future__ import annotations

from typing import Any

from starlette.types import Scope

MEDIA_TYPES = ("text/csv", "application/octet-stream", "application/vnd.safetensors", "application/zip")
"""What a file may be declared as; what it is, its bytes say. None of them can be sent by a form of another page."""

FILE_BODY: dict[str, Any] = {
    "required": True,
    "description": "The bytes of the file.",
    "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES},
}
"""The body of such a request, for the OpenAPI document."""

_PATHS = frozenset({"/datasets", "/optimizers"})


def is_upload(scope: Scope) -> bool:
    """Whether this request brings a file."""
    return bool(scope["method"] == "POST" and scope["path"] in _PATHS)
