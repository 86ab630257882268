"""Programs that measure: `python -m benchmarks.NAME`, which `./run bench NAME` runs."""
