"""The containers' health check: `healthy.py api` or `healthy.py worker`; exit code 0 is healthy.

`api` asks the server for /healthz. `worker` asks Redis whether a worker of this container is registered there: RQ's
registration lapses by itself when the worker stops renewing it.
"""

import os
import socket
import sys
import urllib.request


def api() -> str | None:
    """What is wrong with the API in this container; None when it is well."""
    port = os.environ.get("GRADSMITH_PORT", "8000")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=4) as answer:
            return None if answer.status == 200 else f"/healthz answered {answer.status}"
    except OSError as error:
        return f"/healthz did not answer: {error}"


def worker() -> str | None:
    """What is wrong with the worker in this container; None when it is well."""
    import redis

    prefix = f"rq:worker:{socket.gethostname()}-".encode()
    try:
        store = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=5, socket_connect_timeout=5)
        names = [name for name in store.smembers("rq:workers") if name.startswith(prefix) and store.exists(name)]
    except redis.RedisError as error:
        return f"Redis did not answer: {error}"
    return None if names else f"no worker is registered as {prefix.decode()}*"


if __name__ == "__main__":
    if sys.argv[1:] not in (["api"], ["worker"]):
        sys.exit("usage: healthy.py api|worker")
    sys.exit(api() if sys.argv[1] == "api" else worker())
