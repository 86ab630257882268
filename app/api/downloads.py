"""Data sets that the server downloads for its families."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response

from app.api.dependencies import ServicesDep
from app.api.schemas import BuiltInDataset
from app.commands import command
from app.http.problems import Problem, responses
from app.openapi.examples import BUILT_IN_DATASET
from app.store.errors import DatasetNotFound
from models.datasets import downloads
from models.families import FAMILIES

router = APIRouter(tags=["datasets"])

_ONE: dict[str, Any] = {"content": {"application/json": {"example": BUILT_IN_DATASET}}}


def built_in_datasets(data_dir: Path) -> list[BuiltInDataset]:
    return [_document(state) for state in downloads.states(data_dir)]


@router.get(
    "/datasets/{dataset}/fetch",
    operation_id="datasets_fetch_state",
    summary="Whether a data set of the server's families is here, and how its download stands",
    responses={200: _ONE, **responses("dataset_not_found")},
)
def datasets_fetch_state(dataset: str, services: ServicesDep, response: Response) -> BuiltInDataset:
    response.headers["Cache-Control"] = "no-store"
    return _document(_known(dataset, services.settings.data_dir))


@router.post(
    "/datasets/{dataset}/fetch",
    operation_id="datasets_fetch",
    summary="Download a data set of the server's families",
    description=(
        "From its authors' or other public hosts, checked, into the server's data folder, by a process beside the "
        "API; GET of the same address says how far it is. 200 when it is here already, and nothing is fetched twice. "
        "On a server with keys this needs the scope `admin`."
    ),
    status_code=202,
    response_model=BuiltInDataset,
    responses={
        200: {"description": "It is here.", "model": BuiltInDataset, **_ONE},
        202: {"description": "The download runs.", **_ONE},
        **responses("cross_origin", "dataset_not_found", "not_fetchable"),
    },
)
def datasets_fetch(dataset: str, services: ServicesDep) -> Response:
    data_dir = services.settings.data_dir
    found = _known(dataset, data_dir)
    if not found.ready and not found.fetchable:
        brought = command(f"data import {dataset} FOLDER", services.settings)
        raise Problem("not_fetchable", f"Nobody publishes {dataset} for programs: {brought} brings it from a folder.")
    if not found.ready and (found.download is None or found.download.status != "running"):
        services.downloading.begin(dataset, data_dir)
        found = _known(dataset, data_dir)
    content = _document(found).model_dump_json()
    return Response(content, 200 if found.ready else 202, {"Cache-Control": "no-store"}, media_type="application/json")


def _known(name: str, data_dir: Path) -> downloads.State:
    try:
        return downloads.state(name, data_dir)
    except KeyError:
        raise DatasetNotFound(name) from None


def _document(state: downloads.State) -> BuiltInDataset:
    families = [family.name for family in FAMILIES.values() if state.name in family.tasks.datasets]
    return BuiltInDataset(**asdict(state), families=families)
