"""The server itself."""

from __future__ import annotations

from gradsmith.answers import record
from gradsmith.calls.base import M, Resource, call
from gradsmith.programs import Call
from gradsmith.types import Diagnosis

_DOCTOR_SECONDS = 150.0  # it imports torch, and waits for stores that are away


class System(Resource[M]):
    """`client.system`."""

    @call
    def doctor(self) -> Call[Diagnosis]:
        """Have the doctor look at the server's machine, for some seconds; its findings stay for half a minute. Raises
        Forbidden without an admin key of the workspace `default` on a server with keys."""
        return Call("GET", "/doctor", record(Diagnosis.from_json), read_timeout_seconds=_DOCTOR_SECONDS)
