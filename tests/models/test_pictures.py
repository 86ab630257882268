"""Pictures of tasks: taken in the middle of a run, stored with it, and shown in an evaluation's report."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from matplotlib.image import imread

from app.report.page import evaluation_page
from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models.evaluation.evaluate import evaluate
from models.evaluation.pictures import png
from models.families.style import StyleSpec
from models.spec import Split, overridden
from models.tasks.catalogue import open_for_testing
from tests.models.test_baseline_runs import Shelf

SETTINGS = {"content_layers": ("relu1_1",), "style_layers": ("relu1_1",)}


def pixels(file):
    return torch.from_numpy((imread(io.BytesIO(file), format="png") * 255).round())


def test_a_png_file_has_the_pixels():
    image = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pixels(png(image.numpy())), image.float())


@pytest.fixture
def measured(art_data, evaluation_spec):
    """The result of an evaluation, and that of another which found the baselines' runs in a store."""
    plan = {"baselines": ["adam"], "untuned": [], "schedules": ["constant"]}
    spec = evaluation_spec("neural-art", horizon=4, test_tasks=3, tuning_tasks=1, **plan)
    family = spec.family.model_copy(update={"tasks": StyleSpec(**SETTINGS)})
    spec = overridden(spec, {"family": family.model_dump()})
    rule, store = rule_weights.dumps(build({"kind": "hyper"})), Shelf()
    *_, first = evaluate(rule, spec, data_dir=art_data, store=store)
    *_, second = evaluate(rule, spec, data_dir=art_data, store=store)
    return first.result, second.result


def test_an_evaluation_shows_what_was_optimized(measured, art_data):
    result, stored = measured
    taken = result["pictures"]
    assert stored["pictures"] == taken
    assert stored["stored"]["test"]  # which it was
    assert (taken["tasks"], taken["steps"], list(taken["optimizers"])) == (2, [1, 2, 4], ["learned", "adam"])
    sheets = {name: pixels(base64.b64decode(sheet)) for name, sheet in (taken["optimizers"] | taken["given"]).items()}
    assert {name: tuple(sheet.shape[:2]) for name, sheet in sheets.items()} == {
        "learned": (128, 192), "adam": (128, 192), "content": (128, 64), "style": (128, 64),
    }  # fmt: skip
    family = open_for_testing(StyleSpec(**SETTINGS), art_data)
    [batch] = family.sample(Split.TEST, seed=result["seed"], trajectory=0, tasks=2)
    assert torch.equal(sheets["content"], batch.given_pictures()["content"].flatten(0, 1).float())
    theta = batch.initial()
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    rate = result["tuning"]["adam"]["learning_rate"]["final"]
    for step in (1, 2, 3, 4):  # Kingma and Ba 2015, algorithm 1
        _, gradient = batch.losses_and_gradient(theta, 0)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        theta = theta - rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        if step in taken["steps"]:
            left = 64 * taken["steps"].index(step)
            truth = batch.pictures(theta).flatten(0, 1).float()
            assert float((sheets["adam"][:, left : left + 64] - truth).abs().max()) <= 1
    assert not torch.equal(sheets["learned"], sheets["adam"])
    page = evaluation_page(result, job="job_1", optimizer="opt_1")
    assert page.count("<image ") == 2 * (2 + 2 * 3)  # of two tasks: what is given, two optimizers, three steps
