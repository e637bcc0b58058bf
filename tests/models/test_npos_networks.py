"""NPOS's networks: the release's checkpoints load strictly, parameter counts, and taking weights in without a head.

Golden vectors: npos @ 583c06d, `SupCEHeadResNet(resnet18)`, all widths divided by 16.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from tests.checkout import ROOT
from tests.network_data import CONFIG, SECTION, images, network, write_store
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import npos
from workflow_scripts.methods.base import Sizes
from workflow_scripts.models import clip_vit, resnet_cifar, torchvision_imagenet
from workflow_scripts.networks import checkpoint, foreign
from workflow_scripts.stages import import_weights as import_checkpoint

CONFIGURATION = yaml.safe_load((ROOT / "config" / "npos.yaml").read_text())


def layout(name: str, id: str) -> dict:
    """Layout of a released file as the configuration has it."""
    recipe = next(r for r in CONFIGURATION["recipes"] if r["name"] == name and id in r["where"]["id"])
    return {key: value for key, value in recipe["checkpoint"].items() if key in ("key", "rename", "drop")}


@pytest.fixture(scope="module")
def release(golden):
    return np.load(golden / "npos_resnet18_div16.npz")


@pytest.fixture(scope="module")
def state(release) -> dict[str, torch.Tensor]:
    return {key.removeprefix("state/"): torch.from_numpy(release[key]) for key in release if key.startswith("state/")}


def in_parts(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As both CIFAR trainers wrap their network: encoder, fc and head in DataParallel, mlp and prototypes not."""
    return {re.sub(r"^(encoder|fc|head)\.", r"\1.module.", name): tensor for name, tensor in state.items()}


def cifar_trainer(state: dict[str, torch.Tensor]) -> dict:
    """`save_checkpoint` of train_CIFAR10.py and train_CIFAR100.py; its loss holds prototypes and the network again."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5, momentum=0.9)
    optimiser.param_groups[0]["params"][0].sum().backward()
    optimiser.step()
    wrapped = in_parts(state)
    loss = {"prototypes": torch.ones(7, 8), **{f"model.{name}": tensor for name, tensor in wrapped.items()}}
    return {"epoch": 20, "state_dict": wrapped, "criterion_disp": loss, "opt_state_dict": optimiser.state_dict()}


def whole(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As train_im100.py and, with several GPUs, CLIP's train_npos.py wrap theirs."""
    return {f"module.{name}": tensor for name, tensor in state.items()}


def written(state: dict[str, torch.Tensor], path, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Save tensors of these shapes, all of one number, in a file of a few bytes each."""
    torch.save({k: torch.ones((), dtype=dtype or v.dtype).expand(v.shape) for k, v in state.items()}, path)
    return state


# what the trainers write: `validate` the tensors themselves, every epoch; `save_checkpoint` the training with them
@pytest.mark.parametrize("file", [dict, in_parts, cifar_trainer], ids=["bare", "validate", "save_checkpoint"])
def test_a_released_cifar_checkpoint_gives_the_released_features(release, state, tmp_path, file):
    path = tmp_path / "CIFAR10.pt"
    torch.save(file(state), path)
    net = resnet_cifar.build(resnet_cifar.Options(width=4), 7)
    rules = layout("npos-released", "cifar10")
    foreign.load(net, foreign.read(path, **rules), path, "resnet18", ["fc."])
    net.eval()
    method = npos.build(npos.Options(projection=8, hidden=8, start=0, queue=2, K=1, select=1, pick=1, keep=1), ())
    method.setup(net, Sizes(0, 1, 1, 1, torch.device("cpu")))
    for part, name in ((method.head, "head."), (method.phi, "mlp.")):
        part.load_state_dict({k.removeprefix(name): v for k, v in state.items() if k.startswith(name)})
    with torch.no_grad():
        h = net.features(torch.from_numpy(release["x"]))
        found = {"eval_penultimate": h, "eval_forward": method.project(h), "eval_phi": method.phi(h),
                 "eval_fc_logits": functional.linear(h, state["fc.weight"], state["fc.bias"])}
    for name, values in found.items():
        np.testing.assert_allclose(values.numpy(), release[name], rtol=0, atol=1e-5, err_msg=name)


def test_layouts_are_strict(state, tmp_path):
    path = tmp_path / "x.pt"
    torch.save(state, path)
    rules = layout("npos-released", "cifar10")
    with pytest.raises(OODError, match=r"no tensor begins with 'mpl.'.*correct drop"):
        foreign.read(path, **rules | {"drop": ["mpl."]})
    net = resnet_cifar.build(resnet_cifar.Options(width=4), 7)
    found = foreign.read(path, **rules | {"drop": [p for p in rules["drop"] if p != "head."]})
    with pytest.raises(OODError, match=r"4 do not belong \(first: head.0.bias\)"):
        foreign.load(net, found, path, "n", ["fc."])
    with pytest.raises(OODError, match="fresh names 'conv1.', but the file has such tensors"):
        foreign.load(net, foreign.read(path, **rules), path, "n", ["conv1."])
    with pytest.raises(OODError, match="fresh names 'proj.', but network 'n' has no such tensor"):
        foreign.load(net, foreign.read(path, **rules), path, "n", ["proj."])


@pytest.mark.parametrize(("blocks", "classes", "total"), [
    ((2, 2, 2, 2), 10, 11_569_355), ((2, 2, 2, 2), 100, 11_627_045),
    ((3, 4, 6, 3), 10, 21_677_515), ((3, 4, 6, 3), 100, 21_735_205),
])
def test_parameter_counts_with_heads(blocks, classes, total):
    """The release's total has another C x 128 prototypes, which it never uses."""
    with torch.device("meta"):
        net = resnet_cifar.build(resnet_cifar.Options(blocks=blocks), classes)
        method = npos.build(npos.Options(queue=300), ())
        method.setup(net, Sizes(0, 1, 1, 1, torch.device("meta")))
    found = sum(p.numel() for part in (net, method) for p in part.parameters())
    assert found + classes * 128 == total


@pytest.mark.parametrize("file", [dict, whole], ids=["bare", "DataParallel"])
def test_resnet101_of_imagenet100_reads_the_released_layout(tmp_path, file):
    """Names as the released class gives them: torchvision's network below `model`, its own head beside it."""
    from torchvision.models import resnet101
    with torch.device("meta"):
        inner = resnet101()
        net = torchvision_imagenet.build(torchvision_imagenet.Options("resnet101", project=512), 100)
    assert net.head.in_features == 512
    released = {f"model.{k}": v for k, v in inner.state_dict().items()}
    shapes = {"proj.0.weight": (512, 2048), "proj.0.bias": (512,), "outlier_MLP.0.weight": (32, 512),
              "outlier_MLP.0.bias": (32,), "outlier_MLP.2.weight": (1, 32), "outlier_MLP.2.bias": (1,),
              "fc.weight": (100, 512), "fc.bias": (100,)}
    released |= {k: torch.empty(s, device="meta") for k, s in shapes.items()}
    path = tmp_path / "ImageNet100.pt"
    written(file(released), path)
    kept = foreign.read(path, **layout("npos-released", "imagenet100_squash"))
    assert {k: v.shape for k, v in kept.items()} == {k: v.shape for k, v in net.state_dict().items()}
    with pytest.raises(OODError, match="project is for ResNets"):
        torchvision_imagenet.build(torchvision_imagenet.Options("mobilenet_v2", project=512), 100)


@pytest.mark.parametrize("file", [dict, whole], ids=["bare", "DataParallel"])
def test_the_tail_of_clip_reads_the_released_layout(tmp_path, file):
    """Blocks 10 and 11, the layer norm, the projection and phi, in half precision; all else is the parent's."""
    given = next(r for r in CONFIGURATION["recipes"] if r["name"] == "npos-clip-released")["checkpoint"]
    with torch.device("meta"):
        own = clip_vit.build(clip_vit.Options(), 100).state_dict()
    back = {new: old for old, new in given["rename"].items()}
    tail = {name: tensor for name, tensor in own.items() if not name.startswith(tuple(given["fresh"]))}
    assert len(tail) == 2 * 12 + 2 + 1
    prefix = {name: next(new for new in back if name.startswith(new)) for name in tail}
    released = {back[prefix[name]] + name.removeprefix(prefix[name]): tensor for name, tensor in tail.items()}
    assert {"ln_post.weight", "proj", "transformer_resblocks.block1.mlp.c_fc.weight"} < released.keys()
    released |= {"outlier_MLP.0.weight": torch.empty(32, 512), "outlier_MLP.2.bias": torch.empty(1)}
    path = tmp_path / "CLIP_ImageNet100.pt"
    written(file(released), path, torch.float16)
    found = foreign.read(path, rename=given["rename"], drop=given["drop"])
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in tail.items()}


def test_weights_without_a_head_get_a_probe(tmp_path):
    net = network()
    body = {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    torch.save({"state_dict": body | {"mlp.weight": torch.ones(2)}}, tmp_path / "body.pt")
    pixels, labels = images(120)
    store = write_store(tmp_path / "rows.train.h5", labels, images=pixels)

    def taken(**more):
        config = {"network": SECTION, "key": "state_dict", "drop": ["mlp."], "fresh": ["fc."], **more}
        import_checkpoint.main(["--config", json.dumps(config), "--file", str(tmp_path / "body.pt"), "--seed", "3",
                                "--classes-from", str(store), "--device", "cpu", "--out", str(tmp_path / "out.pt")])
        fresh = network()
        checkpoint.load_weights(fresh, checkpoint.read(tmp_path / "out.pt")["state_dict"], "out.pt", "tiny")
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        with torch.no_grad():
            return float((fresh.eval()(x).argmax(1) == torch.from_numpy(labels)).float().mean()), fresh.fc.weight

    guessed, first = taken()
    assert torch.equal(first, taken()[1])  # a function of the seed
    known, _ = taken(probe=True, normalise=CONFIG["normalise"])
    assert known > 0.95 > guessed


def test_a_probe_needs_train_images(tmp_path, capsys):
    config = {"network": SECTION, "probe": True}
    torch.save(network().state_dict(), tmp_path / "x.pt")
    with pytest.raises(SystemExit):
        import_checkpoint.main(["--config", json.dumps(config), "--file", str(tmp_path / "x.pt"), "--classes", "3",
                                "--out", str(tmp_path / "out.pt")])
    assert "probe fits the head on train images: give normalise" in capsys.readouterr().err
