"""Activation maps, pseudo-masks and the stage that makes them: the release's vectors, closed forms, bad inputs."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from scipy import ndimage

from benchmarks import dfb as benchmark
from tests import typed
from tests.dfb_data import bit_arrays
from tests.network_data import CONFIG, images, write_all, write_store
from workflow_scripts.cams import maps, masks
from workflow_scripts.cams.files import create_masks, read_masks
from workflow_scripts.core.errors import OODError
from workflow_scripts.models import bit, resnet_gn
from workflow_scripts.networks import checkpoint
from workflow_scripts.networks.load import trained
from workflow_scripts.stages import make_masks as cam


@pytest.fixture(scope="module")
def release(golden):
    return dict(np.load(golden / "dfb.npz"))


def test_masks_equal_the_release(release):
    cams = torch.from_numpy(release["cam"].astype(np.float32) / 1024)
    inside = masks.foreground(cams)
    found = masks.pseudo_masks(inside, torch.from_numpy(release["cam_class"]))
    assert np.array_equal(found.numpy(), release["mask"])  # the last one, all zero, is background
    assert not found[-1].any() and found[:-1].flatten(1).any(1).all() and found.max() == 255


@pytest.mark.parametrize("sigma", [0.7, 1.0, 4.0])
def test_the_filter_is_scipys(sigma):
    cam = torch.rand(2, 30, 44, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.stack([ndimage.gaussian_filter(c, sigma) for c in cam.numpy()])
    expected -= expected.min((1, 2), keepdims=True)
    expected /= expected.max((1, 2), keepdims=True)
    np.testing.assert_allclose(masks.smoothed(cam, sigma), expected, rtol=0, atol=1e-12)


def test_a_disc_is_its_class_inside_and_background_outside():
    y, x = torch.meshgrid(torch.arange(128) - 60.0, torch.arange(128) - 70.0, indexing="ij")
    disc = (x * x + y * y < 30**2).float()[None]
    label = masks.pseudo_masks(masks.foreground(disc), torch.tensor([6]))[0]
    r = (x * x + y * y).sqrt()
    assert (label[r < 28] == 7).all() and (label[r > 32] == 0).all() and label.unique().tolist() == [0, 7]


def test_constant_maps_and_maps_without_activation_are_background():
    flat = torch.stack([torch.zeros(16, 16), torch.ones(16, 16)])
    assert not masks.foreground(flat, 1.0).any()


def test_maps_of_several_sizes_are_joined_as_released(release):
    parts = [torch.from_numpy(release[f"cam_map_scale{i}"]) for i in range(4)]
    assert release["cam_scales_order"].tolist() == list(maps.SCALES)
    for kind in ("pred", "lab"):
        chosen = int(release[f"{kind}_keys"][0])
        found = maps.enlarged([part[chosen][None] for part in parts], 128, 128)
        np.testing.assert_allclose(found[0, ::4, ::4], release[f"{kind}_high_res_every4"][0], rtol=0, atol=1e-6)
        assert float(found.double().sum()) == pytest.approx(float(release[f"{kind}_high_res_sum"]), rel=1e-6)
    assert int(release["pred_keys"][0]) == int(release["cam_logits"].argmax())
    assert int(release["lab_keys"][0]) == int(release["cam_label"])


def test_rescaling_is_the_release_s(release):
    image = torch.from_numpy(release["ms_img"])[None]
    for scale in (0.5, 1.5, 2.0):
        name = f"ms_bicubic_{str(scale).replace('.', 'p')}"
        np.testing.assert_allclose(maps.rescaled(image, scale)[0], release[name], rtol=0, atol=1e-6)


def test_the_class_map_of_bit_equals_the_release(release):
    arrays = {name: torch.from_numpy(a) for name, a in bit_arrays(release).items()}
    network = bit.build(bit.Options(), 11).eval()
    network.load_state_dict(bit.convert(arrays, bit.Options(), "x"))
    x = (torch.from_numpy(release["bit_image_u8"][:1]).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        image, mirror = maps.mirrored_pair(network, x)
        np.testing.assert_allclose(network.head(image.mean((2, 3)))[0], release["bit_cam_logits"], rtol=0, atol=1e-4)
        for c in range(11):
            weight, bias = network.head.weight[c:c + 1], network.head.bias[c:c + 1]
            found = maps.class_map(image, weight, bias) + maps.class_map(mirror, weight, bias).flip(2)
            np.testing.assert_allclose(found[0], release["bit_cam"][c], rtol=0, atol=1e-4)


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    network = resnet_gn.build(resnet_gn.Options(width=8), 3).eval().requires_grad_(False)
    torch.nn.init.normal_(network.fc.weight)
    return network


def one_by_one(network: torch.nn.Module, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The released loop: every class's map of one image and its mirror image, scale by scale."""
    result = []
    for image, c in zip(x, classes.tolist(), strict=True):
        total = torch.zeros(32, 32)
        for scale in (1.0, 0.5, 1.5, 2.0):
            pair = torch.stack([image, image.flip(2)])
            if scale != 1:
                pair = torch.nn.functional.interpolate(pair, scale_factor=scale, mode="bicubic", align_corners=False)
            logits = network.dense(pair).clamp_min(0)
            both = (logits[0] + logits[1].flip(2))[None]
            total += torch.nn.functional.interpolate(both, (32, 32), mode="bilinear", align_corners=False)[0, c]
        result.append(total / (total.max() + 1e-5))
    return torch.stack(result)


def test_a_batch_equals_the_images_one_by_one():
    network, x = small(), torch.randn(5, 3, 32, 32)
    predicted = network(x).argmax(1)
    found, classes = maps.activation_maps(network, x)
    assert torch.equal(classes, predicted)
    torch.testing.assert_close(found, one_by_one(network, x, predicted), rtol=1e-4, atol=1e-5)
    other = (predicted + 1) % 3
    found, classes = maps.activation_maps(network, x, other)
    assert torch.equal(classes, other)
    torch.testing.assert_close(found, one_by_one(network, x, other), rtol=1e-4, atol=1e-5)
    # the class is predicted at scale 1, wherever that scale stands, or is none of the scales
    for scales in ((0.5, 1.0), (0.5,)):
        assert torch.equal(maps.activation_maps(network, x, None, scales)[1], predicted)


# ---- files -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("classes", "kind"), [(255, np.uint8), (256, np.uint16), (300, np.uint16)])
def test_any_number_of_classes_fits(tmp_path, classes, kind):
    labels = masks.pseudo_masks(torch.ones(2, 8, 8, dtype=torch.bool), torch.tensor([0, classes - 1]))
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        data = create_masks(file, 2, 8, 8, classes)
        data[:] = labels.numpy().astype(data.dtype)
        assert data.dtype == kind
    found = read_masks(str(path), 2, classes)
    assert found[0, 0, 0] == 1 and found[1, 0, 0] == classes and torch.from_numpy(found).long().max() == classes
    for count, k, message in ((3, classes, "2 pseudo-masks for 3 train images"),
                              (2, classes - 1, f"label {classes} with {classes - 1} classes")):
        with pytest.raises(OODError, match=message):
            read_masks(str(path), count, k)
    with pytest.raises(OODError, match="no file of pseudo-masks"):
        read_masks(str(tmp_path / "none.h5"), 2, 3)


def test_a_file_of_50000_pseudo_masks_is_below_50_mb(monkeypatch):
    """2,000 of them, with longer outlines than an object's: 2 MB."""
    monkeypatch.setattr(benchmark, "MAPS", 2000)
    assert benchmark.megabytes() * 25 < 50


def run(folder, *words, **options):
    config = {key: CONFIG[key] for key in ("network", "normalise")} | {"options": options}
    cam.main(["--config", json.dumps(config), "--checkpoint", str(folder / "seed0.pt"), "--store",
              str(folder / "rows.train.h5"), "--out", str(folder / "masks.h5"), "--device", "cpu", "--threads", "1",
              *words])
    with h5py.File(folder / "masks.h5") as file:
        return file["masks"][:], file["classes"][:], dict(file.attrs)


@pytest.fixture
def folder(tmp_path):
    write_all(tmp_path)
    return tmp_path


def test_the_stage(folder, capsys):
    found, classes, about = run(folder, sigma=1)
    _, labels = images(300, 1)
    assert np.array_equal(classes, labels)
    for label, mask in zip(labels, found, strict=True):
        assert set(np.unique(mask)) <= {0, label + 1}
    assert json.loads(about["options"])["threshold"] == 0.5 and json.loads(about["absent"]) == []
    small_batches = run(folder, sigma=1, batch_size=7)[0]
    assert (small_batches != found).mean() < 1e-3  # sums in another order
    predicted = run(folder, sigma=1, by="predicted")[1]
    network = trained(typed.network(CONFIG["network"]), folder / "seed0.pt", torch.device("cpu"))
    x = torch.from_numpy(images(300, 1)[0]).permute(0, 3, 1, 2).float() / 63.75 - 2
    assert (predicted == network(x).argmax(1).numpy()).mean() > 0.99
    assert "300 images" in capsys.readouterr().out


def test_images_without_activation_are_counted_and_all_background(folder, capsys):
    content = checkpoint.read(folder / "seed0.pt")
    content["state_dict"]["fc.bias"][1] = -1e4  # class 1 is active nowhere
    torch.save(content, folder / "seed0.pt")
    found, _, about = run(folder, sigma=1)
    labels = images(300, 1)[1]
    assert not found[labels == 1].any() and found.any()
    empty = int((~found.any((1, 2))).sum())
    absent = json.loads(about["absent"])
    assert about["empty"] == empty >= 100 and "class 1" in absent
    out = capsys.readouterr().out
    assert f"{empty} without any activation: all background" in out and f"{len(absent)} classes have no pixel" in out


def test_stores_of_another_id_set_are_refused(folder, capsys):
    pixels, labels = images(30)
    for classes, values, message in ((4, labels, "4 classes, but the checkpoint has 3"),
                                     (3, np.zeros(30, int), "2 of 3 classes have no image: class 1, class 2"),
                                     (0, np.full(30, -1), "pseudo-masks are made of images with classes")):
        write_store(folder / "rows.train.h5", values, classes, images=pixels)
        with pytest.raises(SystemExit):
            run(folder)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(folder, sigm=1)
    assert "--config.options.sigm: unknown key 'sigm'; did you mean 'sigma'?" in capsys.readouterr().err
