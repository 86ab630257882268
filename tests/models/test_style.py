"""Neural Art: the loss against its formula, features against torch's own modules, products against autograd's, photos
that stay apart. Networks are small and random; their files have the published format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models.errors import DatasetCorrupt, DatasetMissing
from models.families import FAMILIES
from models.families.style import StyleSpec, data, photos
from models.families.style.features import Features
from models.families.style.networks import NETWORKS
from models.families.style.tasks import MIDDLE, SPREAD
from models.spec import Split
from models.tasks import conformance
from models.tasks import data as data_sets
from models.tasks.catalogue import open_for_testing, open_for_training
from tests.models import small_style

SHALLOW = {"content_layers": ("relu2_1",), "style_layers": ("relu1_1", "relu2_1")}


def drawn(art_data, tasks=2, dtype=torch.float64, **settings):
    [batch] = open_for_training(StyleSpec(**settings), art_data).sample(
        Split.TRAIN, seed=1, trajectory=0, tasks=tasks, dtype=dtype
    )
    return batch


def vgg(tensors, dtype):
    """VGG-19's layers as torch's modules, each rectified output by its name."""
    names = ["11", "12", "P", "21", "22", "P", "31", "32", "33", "34", "P", "41", "42", "43", "44", "P", "51"]

    def convolution(name, padding=1):
        weight, bias = tensors[f"conv{name}.weight"].to(dtype), tensors[f"conv{name}.bias"].to(dtype)
        module = nn.Conv2d(*weight.shape[1::-1], weight.shape[2], padding=padding, padding_mode="reflect").to(dtype)
        module.load_state_dict({"weight": weight, "bias": bias})
        return module

    @torch.no_grad()
    def features(images):
        x, found = convolution("0", padding=0)(images), {}
        for name in names:
            x = nn.MaxPool2d(2)(x) if name == "P" else torch.relu(convolution(name)(x))
            found[f"relu{name[0]}_{name[1:]}"] = x
        return found

    return features


def test_vggs_features_are_those_of_torchs_modules():
    tensors = small_style.weights("vgg19-distilled")
    names = NETWORKS["vgg19-distilled"].names
    images = torch.rand(2, 3, 64, 64)
    found, truth = (
        Features(NETWORKS["vgg19-distilled"], tensors, names).forward(images),
        vgg(tensors, torch.float32)(images),
    )
    assert list(found) == list(names)
    assert len(names) == 13
    for name in names:
        torch.testing.assert_close(found[name], truth[name])


def test_squeezenets_features_are_those_of_torchs_modules():
    tensors, network = small_style.weights("squeezenet"), NETWORKS["squeezenet"]
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)

    def convolved(x, name, **settings):
        weight, bias = (tensors[f"features.{name}.{each}"].double() for each in ("weight", "bias"))
        return torch.relu(torch.conv2d(x, weight, bias, **settings))

    x = images * 255 - torch.tensor([122.679, 116.669, 104.007], dtype=torch.float64).view(3, 1, 1)
    x, truth = convolved(x, "0", stride=2), {}
    truth["relu1"] = x
    for number, fire in zip((3, 4, 5, 7, 8, 9, 10, 12), range(2, 10), strict=True):
        if number in (3, 7, 12):
            x = nn.MaxPool2d(3, 2, ceil_mode=True)(x)
        s = convolved(x, f"{number}.squeeze")
        x = torch.cat([convolved(s, f"{number}.expand1x1"), convolved(s, f"{number}.expand3x3", padding=1)], dim=1)
        truth[f"fire{fire}"] = x
    taken = Features(network, tensors, network.names).to(torch.float64, torch.device("cpu"))
    for name, value in taken.forward(images).items():
        torch.testing.assert_close(value, truth[name])
    for size in (64, 128):
        sizes = [shape.size for name, shape in network.shapes(size, network.names) if name]
        outputs = taken.forward(torch.rand(1, 3, size, size, dtype=torch.float64))
        assert sizes == [outputs[name].shape[2] for name in network.names]


def test_the_loss_is_content_style_and_variation(art_data):
    batch = drawn(art_data, content_weight=2.0, style_weight=3.0, variation_weight=4.0)
    theta = batch.initial()
    images = (MIDDLE + SPREAD * theta.view(2, 3, 64, 64)).double()
    features = vgg(small_style.weights("vgg19-distilled"), torch.float64)
    usual = photos.content_images(art_data, 64)[Split.TRAIN]
    calibration = usual[torch.linspace(0, len(usual) - 1, 16).long()] / 255.0
    means = vgg(small_style.weights("vgg19-distilled"), torch.float32)(calibration)
    scales = {name: float(f"{float(value.mean()):.4g}") for name, value in means.items()}
    given = batch.given_pictures()
    here, painting, content = (
        features(each)
        for each in (images, *(given[name].double().permute(0, 3, 1, 2) / 255 for name in ("style", "content")))
    )
    expected = 2.0 * ((here["relu3_1"] - content["relu3_1"]) / scales["relu3_1"]).square().flatten(1).mean(1)
    for name in ("relu1_1", "relu2_1", "relu3_1"):
        gram, wanted = (
            torch.einsum("nchw,ndhw->ncd", each, each) / each.shape[2] / each.shape[3] / scales[name] ** 2
            for each in (here[name], painting[name])
        )
        expected = expected + 3.0 / 3 * (gram - wanted).square().flatten(1).mean(1)
    down, across = images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]
    expected = expected + 4.0 * (down.square().flatten(1).mean(1) + across.square().flatten(1).mean(1))
    torch.testing.assert_close(batch.losses(theta, 0), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("network", ["vgg19-distilled", "squeezenet"])
def test_the_product_with_the_hessian_is_that_of_double_backward(art_data, network):
    batch = drawn(art_data, network=network)
    theta = batch.initial().requires_grad_()
    v = torch.randn(batch.coordinates, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad(batch.losses(theta, 0).sum(), theta, create_graph=True)
    (expected,) = torch.autograd.grad(gradient @ v, theta)
    found = batch.hessian_vector(theta.detach(), 0, v)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_every_promise_is_kept(art_data, monkeypatch):
    checks = {name: check for name, check in conformance.CHECKS.items() if name != "memory"}  # of the published weights
    monkeypatch.setattr(conformance, "CHECKS", checks)
    monkeypatch.setattr("models.families.style.tasks.CALIBRATION_IMAGES", 2)  # the family is opened many times
    assert dict(conformance.conformance(conformance.Subject(StyleSpec(**SHALLOW), art_data))) == dict.fromkeys(checks)


def test_no_photo_has_images_in_two_splits(art_data):
    content, _ = small_style.pictures()
    for size in (64, 128):
        parts = photos.content_images(art_data, size)
        assert [len(parts[split]) for split in (Split.TEST, Split.VALIDATION, Split.TRAIN)] == (
            [30, 20, 15] if size == 64 else [6, 4, 3]
        )
    owners = photos.photos_of(small_style.PHOTOS)
    assert sorted(torch.cat([*owners.values()]).tolist()) == list(range(small_style.PHOTOS))
    square = photos.content_images(art_data, 128)[Split.TEST][0].permute(1, 2, 0).numpy()
    tiles = {
        tile.tobytes()
        for tile, photo in zip(content["tiles_div2"], content["photo_div2"], strict=True)
        if photo in owners[Split.TEST]
    }
    assert {square[r : r + 64, c : c + 64].tobytes() for r in (0, 64) for c in (0, 64)} <= tiles
    family = open_for_testing(StyleSpec(**SHALLOW), art_data)
    [batch] = family.sample(Split.TEST, seed=0, trajectory=0, tasks=8)
    shown = batch.given_pictures()["content"].numpy()
    own = [
        *content["tiles_div4"][owners[Split.TEST].numpy()],
        *(
            tile
            for tile, photo in zip(content["tiles_div2"], content["photo_div2"], strict=True)
            if photo in owners[Split.TEST]
        ),
    ]
    assert all(any(np.array_equal(image, tile) for tile in own) for image in shown)


def test_the_start_is_white_noise_and_pictures_are_pixels(art_data):
    batch = drawn(art_data, dtype=torch.float32, **SHALLOW)
    theta = batch.initial()
    assert abs(float(theta.std()) - 1) < 0.02
    theta[:2] = torch.tensor([-9.0, 9.0])
    images = batch.pictures(theta)
    assert images[0, 0, :2, 0].tolist() == [0, 255]  # what no screen shows is cut
    plain = (127.5 + 63.75 * theta.view(2, 3, 64, 64)).clamp(0, 255).permute(0, 2, 3, 1)
    assert float((images - plain).abs().max()) <= 0.51


def test_a_layer_that_the_network_does_not_have_is_refused():
    with pytest.raises(ValidationError, match=r"squeezenet has no layer 'relu4_2'; it has relu1, fire2"):
        StyleSpec(network="squeezenet", content_layers=("relu4_2",))


def test_files_are_imported_from_a_folder_or_its_subfolders_and_checked(art_source, tmp_path, capsys):
    place = tmp_path / "elsewhere"
    for name in ("art", "vgg19-distilled", "squeezenet"):
        lacking = data_sets.known()[name].lacking
        assert f"gradsmith-server data import {name} FOLDER --data {place}" in lacking(place)
        assert data_sets.main(["import", name, str(art_source), "--data", str(place)]) == 0
        assert lacking(place) is None
        data_sets.known()[name].check(place)
    assert data_sets.main(["import", "art", str(place), "--data", str(place)]) == 1
    assert "lack content64.npz, style64.npz of the data set art" in capsys.readouterr().err
    path = place / "datasets" / "art" / "style64.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetCorrupt, match=r"style64.npz is not the published style64.npz: its SHA-256"):
        open_for_training(StyleSpec(), place)
    with pytest.raises(DatasetMissing, match=r"vgg19_distilled16x.safetensors.*data import vgg19-distilled FOLDER"):
        data.NETWORK_FILES["vgg19-distilled"].read(tmp_path / "empty", NETWORKS["vgg19-distilled"].file)


def test_the_built_in_families_are_the_papers():
    own, style, large = (FAMILIES[name].tasks for name in ("neural-art", "neural-art-new-style", "neural-art-128"))
    assert own.coordinates_per_task == 3 * 64 * 64
    assert style == own.model_copy(update={"style": style.style})
    assert style.style != own.style
    assert large == own.model_copy(update={"size": 128})
    assert (FAMILIES["neural-art"].recipe.horizon, FAMILIES["neural-art"].recipe.unroll_steps) == (128, 32)
