"""Real servers that tests and benchmarks run against. They die with the process that started them, however it ends."""

from __future__ import annotations

from workshop.services.bucket import BucketServer
from workshop.services.postgres import PostgresDatabase, PostgresServer, start_postgres
from workshop.services.starting import NoServer, short_folder
from workshop.services.valkey import ValkeyServer, flush

__all__ = [
    "BucketServer",
    "NoServer",
    "PostgresDatabase",
    "PostgresServer",
    "ValkeyServer",
    "flush",
    "short_folder",
    "start_postgres",
]
