"""Servers and harness that tests/ and benchmarks/ share, so that neither imports the other.

services   Postgres and Valkey, started when needed and gone with the process that started them
serving    HTTP servers in a thread: the service's application, or an app of the caller's
served     the service as users start it, in processes of its own
working    what a worker does to the stores, without training; results to store
keyed      keys for a server that asks for them
fuzzing    schemathesis and a server with something of everything
old        a database that an older version of the project made by running jobs
memory     jobs, the memory predicted for them and the peak that they reach
"""
