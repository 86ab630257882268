"""The service benchmark: every row of load that was to be shown, ours beside MLflow in one run.

load       the load generator: a lean HTTP client in a process of its own, since clients and servers share the cores
stores     Postgres, durable, with a database for each server
bench, peer  the servers: ours (`core.served`) over Postgres or embedded stores; MLflow 3 in its best configuration
posts, aliases, keys, points, curves, streams, queue, small    the rows; `peer_options` when asked for
sections, main    what is measured and the command line; kept results, machine and statistics are those of `core`
report     what comes out: conditions, `verdicts` (held against what was to be shown), `tables`
"""
