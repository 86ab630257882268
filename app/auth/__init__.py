"""Who may talk to this server, and what each may do."""

from app.auth.address import (
    LOOPBACK_NAMES,
    UnguardedAddress,
    allowed_hosts,
    host_name,
    is_loopback,
    refuse_unguarded,
    same_origin,
)
from app.auth.caller import ALL_SCOPES, Caller, Scope, unkeyed

__all__ = [
    "ALL_SCOPES",
    "LOOPBACK_NAMES",
    "Caller",
    "Scope",
    "UnguardedAddress",
    "allowed_hosts",
    "host_name",
    "is_loopback",
    "refuse_unguarded",
    "same_origin",
    "unkeyed",
]
