"""A checksum over all of a checkpoint's bytes. Needs no torch, so the store's keepers can check without the science."""

from __future__ import annotations

import hashlib

from models.errors import CheckpointMismatch

_MARK = b"gradsmith-sealed-1\n"
_SHA256_BYTES = 32


def seal(content: bytes) -> bytes:
    """`content` behind a mark and its SHA-256."""
    return _MARK + hashlib.sha256(content).digest() + content


def is_sealed(data: bytes) -> bool:
    """Whether the mark is there. Checkpoints of format 1 have none: nothing tells whether they changed."""
    return data.startswith(_MARK)


def unseal(data: bytes) -> bytes:
    """The content that was sealed. Raises CheckpointMismatch when a byte of it, or of its checksum, has changed."""
    begin = len(_MARK) + _SHA256_BYTES
    expected, content = data[len(_MARK) : begin], data[begin:]
    found = hashlib.sha256(content).digest()
    if found != expected:
        raise CheckpointMismatch(
            f"The checkpoint is damaged: its {len(content):,} bytes have the SHA-256 {found.hex()[:12]}..., and were "
            f"written with {expected.hex()[:12]}... Start the job again without it."
        )
    return content


def is_intact(data: bytes) -> bool:
    """Whether sealed bytes are those that `seal` returned."""
    try:
        unseal(data)
    except CheckpointMismatch:
        return False
    return True
