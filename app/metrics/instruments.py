"""What one server process counts by itself: requests and live streams."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported

# From a cached answer to a whole curve of a million points; the load table's bounds (30, 150 ms) are among them.
_HTTP_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAG_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 15.0)


class Instruments:
    """The counters and histograms of one process. In several processes on one address they are added up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.http_seconds = Histogram(
            "gradsmith_http_request_seconds",
            "Time until an answer began, by method, route and status.",
            ["method", "route", "status"],
            buckets=_HTTP_SECONDS,
            registry=registry,
        )
        self.http_in_flight = Gauge(
            "gradsmith_http_requests_in_flight",
            "Requests whose answer has not ended; open event streams are among them.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.stream_clients = Gauge(
            "gradsmith_stream_clients",
            "Clients that follow a job's events.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.stream_lag_seconds = Histogram(
            "gradsmith_stream_lag_seconds",
            "From a worker's sending an event to Redis until this server had it for its clients.",
            buckets=_LAG_SECONDS,
            registry=registry,
        )
        self.stream_overruns = Counter(
            "gradsmith_stream_overruns",
            "Times that a client was too slow for the live stream and was sent to the database.",
            registry=registry,
        )
