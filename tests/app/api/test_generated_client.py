"""The service through a client that openapi-python-client generates from the OpenAPI document, as its users would."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.app.api.shelf import Shelf
from workshop.working import WEIGHTS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openapi_python_client") is None, reason="openapi-python-client is not installed"
)
PACKAGE = "generated_gradsmith_client"


@pytest.fixture(scope="module")
def generated(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the generated package can be imported from."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(shelf.api.get("/openapi.json").text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"post_hooks": []}), encoding="utf-8")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json"]
    command += ["--config", "config.json", "--output-path", PACKAGE, "--meta", "none"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


@pytest.mark.usefixtures("generated")
def test_a_generated_client_drives_the_service(shelf: Shelf) -> None:
    client = module("client").Client(base_url=str(shelf.api.base_url))

    def call(operation: str, **arguments: Any) -> Any:
        """operation: `<tag>.<operation id>`."""
        return module(f"api.{operation}").sync_detailed(client=client, **arguments)

    with client:
        families = call("families.families_list").parsed
        assert "quadratic" in [family.name for family in families.data]

        models = module("models")
        body = models.MetaTrainRequest(kind="meta_train", family="quadratic", seed=7)
        posted = call("jobs.jobs_create", body=body)
        assert posted.status_code == 202
        job = call("jobs.jobs_get", job_id=posted.parsed.id).parsed
        assert (job.id, job.family, job.status) == (posted.parsed.id, "quadratic", "queued")
        assert job.spec["seed"] == 7
        call("jobs.jobs_cancel", job_id=job.id)

        record = call("optimizers.optimizers_record", reference="quadratic@1").parsed
        assert isinstance(record, models.Optimizer)
        assert (record.id, record.reference) == (shelf.first, "quadratic@1")
        weights = call("optimizers.optimizers_weights", reference="quadratic@1")
        assert (weights.status_code, weights.content) == (200, WEIGHTS)
        part = call("optimizers.optimizers_weights", reference=shelf.first, range_="bytes=8-15")
        assert (part.status_code, part.content) == (206, WEIGHTS[8:16])

        curve = call("jobs.jobs_curve_json", job_id=shelf.training).parsed
        assert (curve.job, len(curve.step)) == (shelf.training, curve.total_points)
        rows = call("jobs.jobs_curve_csv", job_id=shelf.training)
        assert rows.content.decode().splitlines()[0] == "step,loss,gradient_norm,validation,learning_rate,skipped"
        assert call("jobs.jobs_curve_png", job_id=shelf.training).content[:8] == b"\x89PNG\r\n\x1a\n"

        missing = call("optimizers.optimizers_record", reference="quadratic@99")
        assert (missing.status_code, missing.parsed.code) == (404, "optimizer_not_found")
