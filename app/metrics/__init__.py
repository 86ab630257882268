"""What /metrics tells Prometheus: this server's own counts, and what the stores say of the whole service.

`Metrics` is one per process. What it counts itself (HTTP, streams) is added up over the API processes that share an
address, by prometheus_client's files in the folder that PROMETHEUS_MULTIPROC_DIR names; what the stores hold is read
when asked, so every process answers the same (docs/decisions/0031-metrics-over-several-processes.md).
"""

from app.metrics.exposition import Metrics
from app.metrics.instruments import Instruments

__all__ = ["Instruments", "Metrics"]
