"""Who may talk to this server, and what each may do."""

from app.auth.address import (
    LOOPBACK_NAMES,
    UnguardedAddress,
    allowed_hosts,
    host_name,
    is_loopback,
    keys_required,
    refuse_without_keys,
    same_origin,
)
from app.auth.caller import ALL_SCOPES, SCOPES, Caller, Scope, required_scope, unkeyed, with_lesser

__all__ = [
    "ALL_SCOPES",
    "LOOPBACK_NAMES",
    "SCOPES",
    "Caller",
    "Scope",
    "UnguardedAddress",
    "allowed_hosts",
    "host_name",
    "is_loopback",
    "keys_required",
    "refuse_without_keys",
    "required_scope",
    "same_origin",
    "unkeyed",
    "with_lesser",
]
