"""Whether the data sets of a job are here."""

from __future__ import annotations

from app.http.problems import FieldError, Problem
from app.settings import Settings
from models.families import lacking_data
from models.spec import JobSpec
from models.task_spec import TaskSpec


def refuse_missing_data(spec: JobSpec, settings: Settings) -> None:
    """Raises Problem `data_set_missing`, which names the data set and the command that brings it, when a worker would
    not find one in this server's data folder and would not fetch it by itself."""
    if not settings.check_data_sets:
        return
    for tasks, pointer in _families(spec):
        missing = lacking_data(tasks, settings.data_dir)
        if missing is not None:
            error = FieldError(location="body", pointer=pointer, code="data_set_missing", message=missing)
            raise Problem("data_set_missing", missing, errors=[error])


def _families(spec: JobSpec) -> list[tuple[TaskSpec, str]]:
    """What a job is about, and where in its body that is said."""
    mixture = enumerate(spec.mixture)
    return [(spec.family.tasks, "/family"), *((each.tasks, f"/recipe/mixture/{number}") for number, each in mixture)]
