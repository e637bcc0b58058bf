"""BiT: outputs, files of weights, and what is refused; weight standardisation done once; its schedule."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests import typed
from tests.dfb_data import bit_arrays, forward
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods.mixup import bit_mixup
from workflow_scripts.models import bit, resnet_gn
from workflow_scripts.networks import checkpoint, foreign
from workflow_scripts.stages import import_weights as import_checkpoint
from workflow_scripts.training.schedule import bit_rate, bit_steps, learning_rate, resolved

SECTION = {"name": "bit", "model": "bit", "options": {}}


@pytest.fixture(scope="module")
def release(golden):
    return dict(np.load(golden / "dfb.npz"))


@pytest.fixture(scope="module")
def arrays(release):
    return bit_arrays(release)


@pytest.fixture(scope="module")
def npz(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("bit") / "BiT-M-R50x1.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def x(release):
    return (torch.from_numpy(release["bit_image_u8"]).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


@pytest.fixture(scope="module")
def network(npz):
    network = bit.build(bit.Options(), 11)
    foreign.load(network, foreign.converted(foreign.read(npz), typed.network(SECTION), npz), npz, "bit")
    return network.eval().requires_grad_(False)


def test_the_npz_has_the_release_s_153_arrays(release, arrays):
    assert len(arrays) == 153
    sums = [arrays[str(name)].astype(np.float64).sum() for name in release["bit_names"]]
    np.testing.assert_allclose(sums, release["bit_array_sums"], atol=1e-9)
    assert sorted(arrays) == sorted(name for name, _ in bit._npz(bit.Options()))


def test_outputs_equal_the_release_and_an_independent_forward_pass(release, arrays, network, x):
    features, logits = forward(arrays, x)
    with torch.inference_mode():
        found, z = network.features(x), network(x)
        dense = network.dense(x)
    torch.testing.assert_close(z, logits, rtol=0, atol=5e-5)
    torch.testing.assert_close(found, features, rtol=0, atol=5e-5)
    np.testing.assert_allclose(z, release["bit_logits_f64"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(found, release["bit_feat"], rtol=0, atol=1e-4)
    # lossless conversion: the mean over the maps' own places, not over the enlarged map
    torch.testing.assert_close(dense.mean((2, 3)), z, rtol=0, atol=1e-5)
    enlarged = torch.nn.functional.interpolate(dense, (128, 128), mode="bilinear", align_corners=True)
    assert enlarged.shape == tuple(release["bit_dense_shape"])
    np.testing.assert_allclose(enlarged[:, :, ::8, ::8], release["bit_dense_every8"], rtol=0, atol=1e-4)
    assert (enlarged.mean((2, 3)) - z).abs().max() > 1e-3


def test_stages_and_half_stride(release, arrays, network, x):
    with torch.inference_mode():
        shapes = [tuple(s.shape) for s in network.stages(x)]
        backbone, sums, part = network.backbone, [], x
        for layer in (backbone.stem, *backbone.stages):
            part = layer(part)
            sums.append(float(part.double().sum()))
    assert shapes == list(map(tuple, release["bit_layer_shapes"].tolist()))
    scale = release["bit_layer_abs_sums"]
    assert (np.abs(np.array(sums) - release["bit_layer_sums"]) < 1e-5 * scale).all()
    half = bit.build(bit.Options(half_stride=True), 11)
    half.load_state_dict(network.state_dict())
    with torch.inference_mode():
        np.testing.assert_allclose(half.eval()(x), release["bit_half_logits"], rtol=0, atol=1e-4)


def test_counts_and_the_head_of_zeros():
    for size in bit.SIZES:
        with torch.device("meta"):
            network = bit.build(bit.Options(size=size), 11)
        if size == "R50x1":
            assert sum(p.numel() for p in network.parameters()) == 23_500_352 + 2049 * 11 == 23_522_891
        assert set(network.state_dict()) == {own for _, own in bit._npz(bit.Options(size=size))}
    fresh = bit.build(bit.Options(), 3)
    assert not fresh.fc.weight.any() and not fresh.fc.bias.any()


@pytest.mark.parametrize("build", [
    lambda: bit.build(bit.Options(), 3),
    lambda: resnet_gn.build(resnet_gn.Options(), 3)])
def test_weights_standardised_once_give_the_same_outputs(build):
    torch.manual_seed(0)
    network = build().double().eval().requires_grad_(False)  # rounding in float32 differs from CPU to CPU
    torch.nn.init.normal_(network.fc.weight, std=0.1)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        before = network(x)
        network.fold_batchnorms()
        torch.testing.assert_close(network(x), before, rtol=1e-7, atol=1e-8)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(type(m) is torch.nn.Conv2d for m in convolutions)
    assert max(float(m.weight.mean((1, 2, 3)).abs().max()) for m in convolutions) < 1e-5


def test_pytorch_names_of_the_release_load_too(arrays, network, x, tmp_path):
    """DFB's own checkpoints: key `model`, prefix `module.`, names of BiT's PyTorch code."""
    theirs = {own: theirs for theirs, own in bit._torch(bit.Options())}
    assert {"root.conv.weight", "body.block1.unit01.downsample.weight", "body.block4.unit03.gn3.bias", "head.gn.weight",
            "head.conv.bias"} <= set(theirs.values())
    state = {f"module.{theirs[name]}": tensor[:, :, None, None] if name == "fc.weight" else tensor
             for name, tensor in network.state_dict().items()}
    path = tmp_path / "bit.pth.tar"
    torch.save({"step": 10_000, "model": state}, path)
    out = tmp_path / "seed0.pt"
    import_checkpoint.main(["--config", json.dumps({"network": SECTION, "key": "model", "strip_prefix": "module."}),
                            "--file", str(path), "--classes", "11", "--out", str(out)])
    found = checkpoint.read(out)["state_dict"]
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())


def run_import(path, out, **config):
    import_checkpoint.main(["--config", json.dumps({"network": SECTION, **config}), "--file", str(path),
                            "--classes", "5", "--out", str(out)])
    return checkpoint.read(out)


def test_a_new_head_for_other_classes(npz, network, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_import(npz, tmp_path / "a.pt")
    assert "has 11 classes, the ID set has 5" in capsys.readouterr().err
    found = run_import(npz, tmp_path / "b.pt", head="new")["state_dict"]
    assert found["fc.weight"].shape == (5, 2048) and not found["fc.weight"].any()
    assert torch.equal(found["backbone.norm.weight"], network.state_dict()["backbone.norm.weight"])


def test_missing_arrays_are_all_listed_and_another_size_is_refused(arrays, tmp_path, npz, capsys):
    some = dict(arrays)
    gone = ["resnet/block2/unit03/b/group_norm/beta", "resnet/head/conv2d/bias"]
    for name in gone:
        del some[name]
    path = tmp_path / "cut.npz"
    np.savez(path, **some)
    with pytest.raises(OODError, match=rf"2 of 153 arrays are missing: {gone[0]}, {gone[1]}"):
        foreign.converted(foreign.read(path), typed.network(SECTION), path)
    with pytest.raises(OODError, match=r"does not hold BiT R101x1: .*arrays are missing: .*block3/unit07"):
        foreign.converted(foreign.read(npz), typed.network(SECTION | {"options": {"size": "R101x1"}}), npz)
    with pytest.raises(OODError, match=r"does not hold BiT R50x1: .*; 1 do not belong \(first: resnet/block9\)"):
        bit.convert({"resnet/block9": torch.ones(1)}, bit.Options(), "x.npz")
    # R50x3 has R50x1's names: its arrays are wider
    wide = {**arrays, "resnet/group_norm/gamma": np.ones(6144, np.float32)}
    flat = {**arrays, "resnet/root_block/standardized_conv2d/kernel": np.ones(3, np.float32)}
    for given, message in ((wide, "backbone.norm.weight is (6144,), expected (2048,)"),
                           (flat, "has shape (3,), expected 4 dimensions; the file is not one of BiT's")):
        np.savez(tmp_path / "other.npz", **given)
        with pytest.raises(SystemExit):
            run_import(tmp_path / "other.npz", tmp_path / "c.pt", head="new")
        assert message in capsys.readouterr().err


def test_a_file_that_is_no_npz_and_one_with_objects(tmp_path):
    broken = tmp_path / "a.npz"
    broken.write_bytes(b"PK\x03\x04 cut off")
    objects = tmp_path / "b.npz"
    np.savez(objects, a=np.array([{}], dtype=object))
    for path in (broken, objects):
        with pytest.raises(OODError, match=rf"{path.name} cannot be read"):
            foreign.read(path)


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(OODError, match="width 10 must be a multiple of groups 4"):
        resnet_gn.build(resnet_gn.Options(width=10), 3)


def test_schedule_of_the_release(release):
    for n in (2500, 15000, 50000, 1_000_000):
        found = [bit_rate(0.003, bit_steps(n), int(step)) for step in release["lr_steps"]]
        np.testing.assert_allclose([-1 if r is None else r for r in found], release[f"lr_n{n}"], rtol=1e-12)
    for size, steps, alpha in zip(release["schedule_sizes"], release["schedule_supports"], release["mixup_alpha"],
                                  strict=True):
        assert bit_steps(int(size)) == tuple(steps) and bit_mixup(int(size)) == alpha
    whole = resolved(typed.schedule({"name": "bit"}), 50_000)
    rates = {s: learning_rate(0.003, whole, s, 390, 26) for s in (0, 250, 500, 3000, 3001, 6001, 9001)}
    assert rates == pytest.approx({0: 0, 250: 0.0015, 500: 0.003, 3000: 0.003, 3001: 3e-4, 6001: 3e-5, 9001: 3e-6})
