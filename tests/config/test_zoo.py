"""The zoo: every row is whole or says unknown, its architecture takes its publisher's tensors, names become recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytorch_ood.model as pytorch_ood
import torch
import torchvision
import yaml
from pytorch_ood.model import registry

from tests.checkout import ROOT, would_run
from workflow_scripts.config import zoo
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.networks import foreign
from workflow_scripts.networks.architecture import Network
from workflow_scripts.networks.load import build
from workflow_scripts.stages.import_weights import known_names
from workflow_scripts.work.expand import read_plan

ROWS = zoo.read()
GOLDEN = ROOT / "tests" / "golden" / "zoo_names"
RECORDED = {"openood": "resnet18-32.openood.txt", "dice": "densenet100.dice.txt", "odin": "densenet100.dice.txt",
            "himplos": "densenet100.dice.txt"}
STUDY = """
variant: study
include: [config/every_score.yaml]
seeds: [0]
experiments:
  - &cifar10
    paper: study
    id: cifar10
    recipes: [zoo/wrn-40-2/cifar10/*, zoo/densenet100/cifar10/dice, zoo/densenet100/cifar10/odin]
    scores: [msp, temperature, max_logit, energy, entropy, margin, gen, gradnorm, ash_s, scale, dice, react, knn, vim,
             mahalanobis, kl_matching, she, fdbd, nci, himplos]
    ood:
      near: [cifar100, tiny_imagenet_val]
      far: [svhn, textures, places365, lsun_c, lsun_r, isun]
  - <<: *cifar10
    id: cifar100
    recipes: [zoo/wrn-40-2/cifar100/*, zoo/densenet100/cifar100/*]
    ood:
      near: [cifar10, tiny_imagenet_val]
      far: [svhn, textures, places365, lsun_c, lsun_r, isun]
"""


def plan(**experiment: object):
    first = {"paper": "p", "id": "cifar10", "scores": ["msp"], "ood": {"far": ["svhn"]}} | experiment
    raw = {"variant": "v", "scores": [{"name": "msp", "label": "MSP"}], "experiments": [first]}
    return read_plan(raw, ROOT, {})


def test_there_are_at_least_a_hundred_networks_and_each_has_a_source():
    assert len(ROWS) >= 100 and all(row.source for row in ROWS.values())
    stated = [row for row in ROWS.values() if row.sha256 != "unknown"]
    assert len(stated) > 150


def test_rows_of_pytorch_ood_are_its_registry():
    for entry in registry._ENTRIES:
        row, how = ROWS[entry.key], entry.preprocessing
        assert (row.url, row.sha256, row.classes) == (entry.url, entry.sha256, entry.arch_kwargs["num_classes"])
        assert row.normalise["mean"] == pytest.approx(how.mean) if isinstance(row.normalise, dict) else (
            tuple(row.normalise.mean) == pytest.approx(how.mean) and tuple(row.normalise.std) == pytest.approx(how.std))
        accuracy = entry.metrics.get("final_accuracy")
        assert row.accuracy == ("unknown" if accuracy is None else pytest.approx(100 * accuracy, abs=1e-3))


def test_rows_of_torchvision_are_its_weights():
    found = {row.url: row for name, row in ROWS.items() if row.source.startswith("torchvision")}
    weights = [w for name in torchvision.models.list_models(module=torchvision.models)
               for w in torchvision.models.get_model_weights(name)]
    # SqueezeNet's last layer is a convolution, so that it has no head
    headless = {w.url for w in weights if w.name.endswith("FEATURES") or "squeezenet" in w.url}
    assert found.keys() == {w.url for w in weights} - headless
    for w in weights:
        if w.url in found:
            row, how = found[w.url], w.transforms()
            digits = re.search(r"-([0-9a-f]{8})\.pth", w.url)
            assert row.sha256 == (digits.group(1) if digits else "unknown")
            assert row.accuracy == w.meta["_metrics"]["ImageNet-1K"]["acc@1"] and [row.size] == how.crop_size
            assert tuple(row.normalise.mean) == tuple(how.mean) and tuple(row.normalise.std) == tuple(how.std)


def place(row: zoo.Entry) -> str:
    """Tensors without memory, but for RegNet, whose widths are computed by tensors."""
    return "cpu" if "regnet" in str(row.network.options) else "meta"


def recorded(name: str) -> dict[str, torch.Size]:
    """Names and shapes of a row's tensors by its publisher's own code."""
    row = ROWS[name]
    entry = next((e for e in registry._ENTRIES if e.key == name), None)
    with torch.device(place(row)):
        if entry:
            made = getattr(pytorch_ood, entry.arch_class.rpartition(".")[2])(**entry.arch_kwargs).state_dict()
        elif row.network.model == "own" and row.network.options["factory"].startswith("torchvision:"):
            model = row.network.options["factory"].removeprefix("torchvision:")
            given = row.network.options.get("arguments", {})
            made = torchvision.models.get_model(model, weights=None, **given).state_dict()
        elif row.source.startswith("torchvision"):
            made = torchvision.models.get_model(row.network.options["architecture"], weights=None).state_dict()
        else:
            if row.network.model == "torchvision_imagenet":  # OpenOOD's ResNet-18 at 224 is torchvision's class
                return {key: value.shape for key, value in torchvision.models.get_model(
                    "resnet18", weights=None, num_classes=row.classes).state_dict().items()}
            made = {}
            for line in (GOLDEN / RECORDED[name.split("/")[2]]).read_text().splitlines()[1:]:
                key, shape = line.split(" ")
                made[key] = torch.empty([int(part) for part in shape.split("x")] if shape != "-" else [])
            head = next(key for key in reversed(made) if key.endswith(".weight") and made[key].dim() == 2)
            for key in (head, head.replace("weight", "bias")):
                made[key] = torch.empty([row.classes, *made[key].shape[1:]])
    return {key: value.shape for key, value in made.items()}


def kinds() -> list[str]:
    """A row of each architecture, number of classes and publisher. Of networks that torchvision's own code makes by
    name, one of each of its modules: what is tried of them is the wrapper."""
    found = {}
    for name, row in ROWS.items():
        architecture, _, training = name.split("/")[:3]
        factory = row.network.options.get("factory", "")
        if factory.startswith("torchvision:"):
            architecture = torchvision.models.get_model_builder(factory.removeprefix("torchvision:")).__module__
        if not factory.startswith("timm:"):  # made by timm's own code by name
            found.setdefault((architecture, row.classes, training if training in RECORDED else ""), name)
    return sorted(name for name in found.values() if not name.endswith("/npos"))  # its code's heads are dropped


@pytest.mark.parametrize("name", kinds())
def test_an_architecture_takes_the_tensors_of_its_publishers_code(name):
    """Names by the publisher's own code: pytorch-ood and torchvision installed; OpenOOD's and DICE's recorded."""
    row, theirs = ROWS[name], recorded(name)
    options = plugins.parse_options("models", row.network.model, row.network.options, name)
    with torch.device(place(row)):
        network = plugins.load("models", row.network.model).build(options, row.classes)
    prefix = getattr(plugins.load("models", row.network.model), "PREFIX", "")
    ours = {key.removeprefix(prefix): value.shape for key, value in network.state_dict().items()}
    if prefix and f"{network.name}.bias" not in theirs:
        del ours[f"{network.name}.bias"]  # the wrapper's, 0 where the module has none
    state = {key: torch.empty(shape, device="meta") for key, shape in theirs.items()}
    read = foreign.aliased(state, ours.keys(), name)
    assert {key: value.shape for key, value in read.items()} == ours


def test_names_that_differ_by_words_load_by_themselves(tmp_path):
    """OpenOOD's ResNet-18 says shortcut where ours says downsample: 122 names as its code gives them, no `rename`."""
    network = build(Network(name="r", model="resnet_cifar", options={"blocks": [2, 2, 2, 2], "width": 64}), 10)
    state = {}
    for line in (GOLDEN / "resnet18-32.openood.txt").read_text().splitlines()[1:]:
        key, shape = line.split(" ")
        state[key] = torch.rand([int(part) for part in shape.split("x")] if shape != "-" else [])
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "best.ckpt")
    found = foreign.read(tmp_path / "best.ckpt", known=known_names(network, "resnet_cifar"))
    foreign.load(network, found, tmp_path / "best.ckpt", "r")
    assert torch.equal(network.state_dict()["layer2.0.downsample.0.weight"], state["layer2.0.shortcut.0.weight"])
    assert foreign.aliased({"norm.1.weight": state["fc.bias"]}, {"norm1.weight"}, "f").keys() == {"norm1.weight"}
    assert foreign.aliased({"norm.9.weight": state["fc.bias"]}, {"norm1.weight"}, "f").keys() == {"norm.9.weight"}


def test_another_layout_and_another_file_are_refused(tmp_path):
    network = build(Network(name="r", model="resnet_cifar", options={}), 10)
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(OODError, match="a.weight"):
        foreign.load(network, foreign.read(tmp_path / "x.pth"), tmp_path / "x.pth", "r")
    with pytest.raises(OODError, match="sha256 is .* expected 7be5be79"):
        foreign.check(tmp_path / "x.pth", ROWS["alexnet/imagenet/v1"].sha256)


def test_a_name_is_a_recipe_with_its_network():
    made = plan(recipes=["zoo/wrn-40-2/cifar10/oe/s1"])
    [run] = made.runs.values()
    row = ROWS["wrn-40-2/cifar10/oe/s1"]
    assert (run.network.model, run.recipe.label) == ("wide_resnet", "wrn-40-2/cifar10/oe/s1")
    given = run.recipe.checkpoint
    assert (given.url, given.sha256, given.file) == (row.url, row.sha256, "zoo/zoo-wrn-40-2-cifar10-oe-s1.pth")
    assert made.sources["zoo-wrn-40-2-cifar10-oe-s1.pth"].checksum == [f"sha256:{row.sha256}"]


@pytest.mark.parametrize(("experiment", "words"), [
    ({"recipes": ["zoo/wrn-40-2/cifar10/oee"]}, "'zoo/wrn-40-2/cifar10/oee' is not known; did you mean"),
    ({"recipes": ["zoo/wrn-40-2/cifar10/oe"], "networks": ["n"]}, "networks: the zoo's recipes bring theirs"),
    ({"recipes": ["zoo/wrn-40-2/cifar10/oe", "mine"]}, "recipes: 'mine' is none of the zoo's"),
    ({"recipes": ["zoo/wrn-40-2/cifar100/oe"]}, "its head has 100 outputs, the ID set has 10 classes"),
    ({"recipes": ["zoo/wrn-40-2/cifar10/oe/s1"], "ood": {"far": ["mine"]}},
     "it was tuned on the images of 'random_images_300k', which 'mine' tests"),
])
def test_what_does_not_go_together_is_refused(experiment, words, monkeypatch):
    row = {"label": "Mine", "reader": "npy_images", "splits": {"test": {
        "files": ["300K_random_images.npy", "tiny_images/300K_random_images.npy"]}}}
    first = {"paper": "p", "id": "cifar10", "scores": ["msp"], "ood": {"far": ["svhn"]}} | experiment
    raw = {"variant": "v", "scores": [{"name": "msp", "label": "MSP"}], "experiments": [first],
           "datasets": {"mine": row}}
    with pytest.raises(OODError, match=words):
        read_plan(raw, ROOT, {})


def test_an_unknown_normalisation_is_refused_and_not_guessed(monkeypatch):
    row = ROWS["wrn-40-2/cifar10/oe"].model_copy(update={"normalise": "unknown"})
    monkeypatch.setattr(zoo, "read", lambda: {"wrn-40-2/cifar10/oe": row})
    with pytest.raises(OODError, match="does not state the normalisation"):
        plan(recipes=["zoo/wrn-40-2/cifar10/oe"])


@pytest.mark.slow
def test_a_study_of_many_networks_is_twenty_lines(tmp_path):
    """45 networks of two ID sets x 20 scores x 8 sets."""
    assert len(STUDY.strip().splitlines()) <= 21
    (tmp_path / "study.yaml").write_text(STUDY)
    runs = read_plan(yaml.safe_load(STUDY), ROOT, {}).runs
    assert len(runs) >= 44
    jobs = would_run(tmp_path, "all", "--snakefile", str(ROOT / "Snakefile"), "--configfile",
                     str(Path(tmp_path) / "study.yaml"))
    assert jobs["import_weights"] == len(runs) and jobs["score_sets"] == 20 * len(runs) and not jobs["train_network"]
