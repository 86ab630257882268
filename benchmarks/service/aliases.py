"""GET by alias: which optimizer a name means now, and its weights. MLflow's answer says which version it is, and no
more: the bytes would be a second request."""

from __future__ import annotations

from functools import partial
from typing import Any

from app.store.aliases import Aliases, Expected
from app.store.registry import Registry
from benchmarks.service.bench import EMBEDDED, FAMILY, MLFLOW, POSTGRES, Bench, finished, running
from benchmarks.service.load import Load, Measured, Request, run
from benchmarks.service.peer import Mlflow
from benchmarks.service.rounds import interleaved
from workshop.served import Service

CLIENTS = 16
ALIAS = "production"
DOWNLOAD = Request("GET", f"/optimizers/{FAMILY}@{ALIAS}")
LOOKUP = Request("GET", f"/api/2.0/mlflow/registered-models/alias?name={FAMILY}&alias={ALIAS}")


def measure(bench: Bench, rounds: int, seconds: float) -> dict[str, Any]:
    """{"servers": {name: [summary of a round]}, "bytes": of our answer}"""
    loads = {}
    for name, service in ((POSTGRES, bench.over_postgres), (EMBEDDED, bench.embedded)):
        set_alias(service)
        loads[name] = Load(service.url, [DOWNLOAD], CLIENTS, seconds)
    if (peer := bench.mlflow) is not None:
        register(peer)
        loads[MLFLOW] = Load(peer.url, [LOOKUP], CLIENTS, seconds)
    sizes: dict[str, float] = {}

    def once(name: str) -> dict[str, Any]:
        measured: Measured = run(loads[name])
        sizes[name] = measured.bytes_received / sum(measured.statuses.values())
        return measured.summary([200])

    servers = interleaved(rounds, {name: partial(once, name) for name in loads})
    return {"servers": servers, "bytes": sizes}


def set_alias(service: Service) -> None:
    """A finished job's optimizer, and the alias that names it."""
    finished(service.database, running(service.database), sequence=1)
    with service.database.write() as session:
        optimizer = Registry(session).resolve(f"{FAMILY}@latest")
        Aliases(session).move(FAMILY, ALIAS, optimizer, Expected())


def register(peer: Mlflow) -> None:
    """A registered model with one version, and the alias that names it."""
    call = partial(peer.call, "POST")
    call("/api/2.0/mlflow/registered-models/create", name=FAMILY)
    call("/api/2.0/mlflow/model-versions/create", name=FAMILY, source="s3://bench/weights")
    call("/api/2.0/mlflow/registered-models/alias", name=FAMILY, alias=ALIAS, version="1")
