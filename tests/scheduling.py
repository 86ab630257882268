"""Which tests share a process when `./run test` runs several at a time, and which come first.

A file's tests stay in one process, for what they share is then made once: a kernel is compiled, ranks are started, a
browser is opened. pytest-xdist's own ways do not do: its `loadfile` cannot join files and begins with those of the most
tests, so that few long ones are left for the end and a core idles; the marks of its `loadgroup` have no effect with
pytest 9.2 (https://github.com/pytest-dev/pytest-xdist/issues/1386).
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

SERVICE, INTERPRETER = "the tests of one real service", "the tests in Triton's interpreter"
"""Fixtures of tests/sdk/conftest.py: `service` and `interpreted`."""
TOGETHER = dict.fromkeys(
    (
        "tests/sdk/test_command.py",
        "tests/sdk/test_examples.py",
        "tests/sdk/test_readme.py",
        "tests/sdk/test_service.py",
    ),
    SERVICE,
) | dict.fromkeys(("tests/sdk/test_triton.py", "tests/sdk/test_triton_tensors.py"), INTERPRETER)
FIRST = (
    "tests/workers/test_processes.py",
    SERVICE,
    "tests/app/host/test_supervise.py",
    "tests/app/api/test_schemathesis.py",
    "tests/sdk/test_native.py",
    "tests/sdk/test_native_tensors.py",
    "tests/models/test_memory.py",
    "tests/test_plugin_template.py",
    "tests/workers/test_sweep.py",
    "tests/app/api/test_api_doc.py",
    "tests/sdk/test_optimizer_axes.py",
    "tests/sdk/test_bfloat16.py",
    "tests/models/test_parallel.py",
    INTERPRETER,
    "tests/workers/test_run.py",
    "tests/app/api/test_report.py",
    "tests/app/api/test_representations.py",
    "tests/sdk/test_optimizer_contract.py",
    "benchmarks/tests/test_reproduce.py",
    "tests/test_run.py",
    "tests/models/test_conformance.py",
    "tests/workers/test_parallel.py",
    "tests/models/test_anatomy.py",
    "tests/app/test_streams.py",
    "tests/app/store/test_upgrade.py",
    "tests/app/store/test_pooler.py",
    "benchmarks/tests/test_reproduce_rules.py",
    "tests/app/host/test_shutdown.py",
    "tests/models/test_expression.py",
    "tests/models/test_baseline_runs.py",
    "tests/app/test_backup.py",
    "tests/app/api/test_dashboard.py",
    "tests/app/api/test_reference_page.py",
    "tests/test_layers.py",
    "tests/app/test_doctor.py",
    "tests/app/test_logs.py",
    "tests/app/store/test_upgrade_0002.py",
    "tests/app/store/test_curves.py",
    "tests/models/test_captured.py",
    "tests/workers/test_preview.py",
)
"""The files of many seconds, the longest first, and those of one long test; the others follow by how many they hold."""


class ByFile(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return TOGETHER.get(file, file)

    def _assign_work_unit(self, node: WorkerController) -> None:
        longest = next((unit for unit in FIRST if unit in self.workqueue), None)
        if longest is not None:
            self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)
