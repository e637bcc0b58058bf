"""Which of our runs published numbers are held against: a configuration perturbed key by key, and what it must get."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.checkout import ROOT
from workflow_scripts.config import catalogue
from workflow_scripts.config import published_numbers as printed
from workflow_scripts.core import plugins
from workflow_scripts.planning import setting
from workflow_scripts.reporting.statistics import METRICS
from workflow_scripts.work import likeness
from workflow_scripts.work import published as matching
from workflow_scripts.work.expand import read_plan

GOE = yaml.safe_load((ROOT / "config" / "goe.yaml").read_text())
NPOS = yaml.safe_load((ROOT / "config" / "npos.yaml").read_text())
CORRECTED = ("goe.2g-4 corrected", "goe.2g-5 corrected")
STAND_IN = "300K Random Images in place of 80 Million Tiny Images"
Change = Callable[[dict[str, Any]], Any]


def of_one_network() -> dict[str, Any]:
    """config/goe.yaml on CIFAR-10 with WRN-40-2, one seed, corrected."""
    raw = copy.deepcopy(GOE) | {"fidelity": {"released": []}}
    raw["experiments"] = [{**raw["experiments"][0], "networks": ["wrn40-2"], "recipes": ["baseline", "oe", "energy-oe"],
                           "seeds": 1}]
    return raw


def recipe(raw: dict[str, Any], name: str = "oe") -> dict[str, Any]:
    """A recipe of the configuration for CIFAR-10."""
    return next(r for r in raw["recipes"] if r["name"] == name and "cifar10" in r["where"]["id"])


def training(**values: Any) -> Change:
    return lambda raw: recipe(raw)["training"].update(values)


def keys(**values: Any) -> Change:
    return lambda raw: recipe(raw).update(values)


def configured(**values: Any) -> Change:
    return lambda raw: raw.update(values)


def rows_of(raw: dict[str, Any], paper: str, id: str, network: str, training: str) -> Iterator[dict[str, Any]]:
    for table in matching.published(read_plan(raw, ROOT, {}), paper)["published"]:
        if (table["id"], table["network"]) == (id, network):
            yield from (row for row in table["rows"] if row["training"] == training)


def verdicts(change: Change, name: str = "OE") -> list[tuple[str, ...]]:
    """What a changed configuration gets for one training: reason, or our run, its differences, those of its sets."""
    raw = of_one_network()
    change(raw)
    return [(row["because"],) if "because" in row else (row["ours"]["recipe"], *row["but_for"], *row["but_for_sets"],
                                                        *filter(None, [row["because_sets"]]))
            for row in rows_of(raw, "goe", "cifar10", "WRN-40-2", name)]


def second(raw: dict[str, Any]) -> None:
    """A recipe as released beside the corrected one."""
    raw["recipes"].append({**recipe(raw), "name": "oe-released", "released": ["goe.2g-4", "goe.2g-5"]})
    raw["experiments"][0]["recipes"].append("oe-released")


def from_another(raw: dict[str, Any]) -> None:
    recipe(raw)["parent"] = "baseline"


def chosen(raw: dict[str, Any]) -> None:
    """The best of two recipes under the name of the one."""
    one = recipe(raw)
    raw["recipes"] += [{**one, "name": "a"}, {**one, "name": "b"},
                       {"name": "oe", "label": "OE", "select_best": {"among": ["a", "b"]}, "where": one["where"]}]
    raw["recipes"].remove(one)


def own_row(name: str, **values: Any) -> Change:
    """The configuration's own row of a dataset."""
    row = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text())[name]
    return lambda raw: raw.update(datasets={name: {**row, **values}})


def sets(change: Callable[[list[str]], Any]) -> Change:
    return lambda raw: change(raw["experiments"][0]["ood"]["far"])


ALIKE = ("oe", *CORRECTED, "goe.2g-1 corrected")
PERTURBED: dict[str, tuple[Change, list[tuple[str, ...]]]] = {
    "nothing": (configured(), [ALIKE]),
    "as released": (configured(fidelity={"released": ["goe.2g-4", "goe.2g-5", "goe.2g-1"]}), [("oe+2g-4+2g-5",)]),
    "as released in training alone": (configured(fidelity={"released": ["goe.2g-4", "goe.2g-5"]}),
                                      [("oe+2g-4+2g-5", "goe.2g-1 corrected")]),
    "as released in one defect": (keys(released=["goe.2g-5"]),
                                  [("oe+2g-5", "goe.2g-4 corrected", "goe.2g-1 corrected")]),
    "a second recipe": (second, [ALIKE, ("oe-released+2g-4+2g-5", "goe.2g-1 corrected")]),
    "the declared stand-in": (
        keys(outliers={"dataset": "random_images_300k", "batch_size": 256}),
        [("oe", *CORRECTED, STAND_IN, "goe.2g-1 corrected")]),
    "the stand-in at another batch size": (
        keys(outliers={"dataset": "random_images_300k", "batch_size": 128}),
        [("training oe: outliers.batch_size is 128, published with 256",)]),
    "other outliers": (
        keys(outliers={"dataset": "tiny_imagenet", "batch_size": 256, "order": "block"}),
        [("training oe: outliers.dataset is tiny_imagenet, published with tiny_images_all",)]),
    "several keys": (
        lambda raw: (training(lr=0.001, batch_size=32)(raw), keys(keep="last")(raw)),
        [("training oe: training.batch_size is 32, published with 128; training.lr is 0.001, published with 0.1; keep "
          "is last, published with best",)]),
    "epochs": (training(epochs=100), [("training oe: training.epochs is 100, published with 200",)]),
    "momentum": (training(momentum=0.8), [("training oe: training.momentum is 0.8, published with 0.9",)]),
    "nesterov": (training(nesterov=False), [("training oe: training.nesterov is false, published with true",)]),
    "weight decay": (training(weight_decay=1e-4),
                     [("training oe: training.weight_decay is 0.0001, published with 0.0005",)]),
    "the last batch": (training(drop_last=True), [("training oe: training.drop_last is true, published with false",)]),
    "precision": (training(precision="bfloat16"),
                  [("training oe: training.precision is bfloat16, published with float32",)]),
    "schedule": (training(schedule={"name": "multistep", "milestones": [100, 150]}), [
        ("training oe: training.schedule.milestones is [100, 150], published with [120, 160]",)]),
    "GPUs": (training(gpus=2), [ALIKE]),
    "an option": (keys(options={"oe_weight": 1.0}),
                  [("training oe: options.oe_weight is 1.0, published with 0.5",)]),
    "an option of default": (keys(options={}), [ALIKE]),
    "normalisation": (keys(normalise="per_image"), [("training oe: normalise.mean differs; normalise.std differs; "
                                                     "normalise is per_image, published with nothing",)]),
    "augmentation": (keys(augment=[{"random_crop": 4}]), [("training oe: augment differs",)]),
    "held-out images": (keys(validation={"count": 5000}), [
        ("training oe: validation.list is nothing, published with config/lists/goe_validation_cifar10.txt",)]),
    "method": (keys(method="mixup", options={}), [("no training by method outlier_exposure",)]),
    "weights to start from": (from_another,
                              [("training oe: parent is baseline, published with nothing",)]),
    "a chosen recipe": (chosen, [("no training by method outlier_exposure",)]),
    "architecture": (lambda raw: raw["networks"][0]["options"].update(dropout=0.0),
                [("network wrn40-2: options.dropout is 0.0, published with 0.3",)]),
    "ID set": (lambda raw: raw["experiments"][0].update(id="svhn", ood={"far": ["textures"]}, compat=[]) or
               [r["where"].update(id=["svhn"]) for r in raw["recipes"] if r["where"]["id"] == ["cifar10"]],
               [("no run with ID set cifar10",)]),
    "fewer ID images": (own_row("cifar10", limit_per_class=100), [
        ("dataset cifar10: limit_per_class is 100, published with nothing",)]),
    "fewer outliers": (own_row("tiny_images_all", sample={"n": 1000}), [
        ("dataset tiny_images_all: sample.n is 1000, published with nothing; sample.seed is 0, published with "
         "nothing",)]),
    "where the outliers lie": (own_row("tiny_images_all", splits={"train": {"files": ["/mine/tiny.bin"]}}), [ALIKE]),
    "a test set less": (sets(lambda far: far.remove("gaussian_10k")), [
        ("oe", *CORRECTED, "not scored here: gaussian_10k")]),
    "a test set with another number of images": (own_row("gaussian_10k", options={"count": 100}), [
        (*ALIKE, "dataset gaussian_10k: options.count is 100, published with 10000")]),
    "score": (lambda raw: next(s for s in raw["scores"] if s["name"] == "msp").update(options={"precision": "float32"}),
              [("score msp: options.precision is float32, published with float64",)]),
    "no such score": (lambda raw: (raw["experiments"][0].update(scores=["energy"]), raw["papers"][0].update(
        headline="energy")), [("another score",)]),
    "small": (configured(small=True), [("small run",)]),
    "limits": (configured(limit={"images": 48}), [("limit.images is 48",)]),
    "features": (configured(features={"precision": "bfloat16"}), [("features.precision is bfloat16",)]),
}


@pytest.mark.parametrize("case", PERTURBED)
def test_what_a_perturbed_configuration_gets(case):
    change, expected = PERTURBED[case]
    assert verdicts(change) == expected


def test_outliers_that_the_baseline_does_not_read_change_nothing():
    def others(raw):
        recipe(raw, "baseline")["outliers"] = {"dataset": "tiny_imagenet"}

    [(run, *but_for)] = verdicts(others, "MCP")
    assert run == "baseline" and but_for == [*CORRECTED, "goe.2g-1 corrected"]
    [(run, *but_for)] = verdicts(lambda raw: recipe(raw, "baseline").update(released=["goe.2g-2"]), "MCP")
    assert run == "baseline+2g-2" and "goe.2g-2, as in the code of 2024" in but_for


def test_goe_is_held_against_the_filter_of_2022():
    def filtered(**options):
        raw = copy.deepcopy(GOE)
        raw["experiments"] = [{**raw["experiments"][0], "networks": ["wrn40-2"], "recipes": ["ours"], "seeds": 1}]
        raw["recipes"].append({**recipe(raw, "baseline"), "name": "ours", "method": "goe", "options": options})
        return list(rows_of(raw, "goe", "cifar10", "WRN-40-2", "G-OE"))

    [static] = filtered(filter="static", k=20)
    assert static["ours"]["recipe"] == "ours" and "k, the weights" in static["inferred"][0]
    [top] = filtered(filter="top", k=8)
    assert top["because"] == ("training ours: options.filter is top, published with static; options.k is 8, published "
                              "with 20")


@pytest.mark.parametrize("id", ["cifar10", "cifar100"])
def test_goe_as_it_ships_is_held_against_every_row_of_its_table(id):
    """By the lists of CIFAR-100, on cut images, on squashed ones in E-OE's rows, which are of 2024."""
    rows = likeness.shipped()
    for network in ("WRN-40-2", "DenseNet-BC-100-12", "ResNet-34"):
        for training, own in (("MCP", "baseline"), ("OE", "oe"), ("E-OE", "energy-oe"), ("G-OE", "goe")):
            [row] = rows_of(copy.deepcopy(GOE), "goe", id, network, training)
            assert row["ours"]["recipe"] == own and row["but_for"] == [*CORRECTED] and not row["but_for_sets"]
            listed = [rows[name] for name in row["datasets"] if name.startswith("scood")]
            assert {(one.options_of("test")["benchmark"], one.geometry) for one in listed} == {
                ("cifar100", "squash32" if training == "E-OE" else "crop32")} and len(listed) == 5
            assert {*row["datasets"]} - {one.name for one in listed} == {
                "cifar100" if id == "cifar10" else "cifar10", "blobs_10k", "gaussian_10k"}


def test_columns_are_means_of_named_sets_and_say_that_they_are_inferred():
    found = list(rows_of(copy.deepcopy(GOE), "goe", "cifar100", "ResNet-34", "OE"))
    assert [len(row["datasets"]) for row in found] == [8] and found[0]["inferred_sets"] == [
        "the sets, from the release's test script"]
    assert found[0]["counts"]["cifar100"] == found[0]["counts"]["cifar10"] == 10_000


# ---------------------------------------------------------------- NPOS on CLIP, CIDER

def test_npos_on_clip_is_scored_by_mcm_and_the_other_row_has_no_recipe():
    found = list(rows_of(copy.deepcopy(NPOS), "npos_clip", "imagenet_clip", "CLIP ViT-B/16", "NPOS"))
    assert {row["ours"]["score"] for row in found} == {"mcm", "mcm_b3"} and len(found) == 2 * 5
    assert all(("npos.B3 corrected" in row["but_for"]) == (row["ours"]["score"] == "mcm") for row in found)
    assert all("weights in half precision there" in row["but_for"] for row in found)
    means = [row["datasets"] for row in found if row["sets"] == "mean"]
    assert means == [["inaturalist_clip", "sun_clip", "places_clip", "textures_clip"]] * 2
    other = list(rows_of(copy.deepcopy(NPOS), "npos_clip", "imagenet_clip", "CLIP ViT-B/16", "KNN"))
    assert len(other) == 5 and {row["because"] for row in other} == {
        "a CLIP fine-tuned with cross-entropy, whose training the source does not say"}


def test_other_weights_to_start_from_are_another_training():
    raw = copy.deepcopy(NPOS)
    next(r for r in raw["recipes"] if r["name"] == "clip")["checkpoint"]["file"] = "clip/another.safetensors"
    found = list(rows_of(raw, "npos_clip", "imagenet_clip", "CLIP ViT-B/16", "NPOS"))
    assert {row["because"] for row in found} == {"training npos-clip: parent: checkpoint differs"}


def test_cider_at_another_batch_size_is_another_training():
    raw = copy.deepcopy(NPOS)
    found = list(rows_of(raw, "npos", "cifar10", "ResNet-18", "CIDER"))
    assert {row["because"].split(";")[2].strip() for row in found} == {"training.batch_size is 256, published with 512"}


@pytest.mark.parametrize(("number", "id", "network", "score"), [
    (0, "cifar10", "ResNet-18", "knn_100"), (3, "cifar100", "ResNet-34", "knn_300")])
def test_cider_by_its_own_scripts_is_compared(number, id, network, score):
    raw = copy.deepcopy(NPOS)
    raw["experiments"] = [{**raw["experiments"][number], "recipes": ["cider-own"]}]
    found = list(rows_of(raw, "npos", id, network, "CIDER"))
    assert {(row["ours"]["recipe"], row["ours"]["score"], *row["but_for"]) for row in found} == {
        ("cider-own", score, "npos.B13 corrected",
         "the numbers are of prototypes that were learned, with twice the weight on dispersion")}
    assert len(found) == 6 and not any(row["because_sets"] for row in found)
    places = next(row for row in found if row["sets"] == "Places365")
    assert places["inferred_sets"] == ["the 10,000 images of Places365, drawn without a list"]


def test_a_defect_that_the_published_network_has_not_is_another_training():
    raw = copy.deepcopy(NPOS)
    raw["fidelity"] = {"released": ["npos.B12", "npos.B13"]}
    raw["experiments"] = [{**raw["experiments"][0], "recipes": ["cider-own"]}]
    own = next(r for r in raw["recipes"] if r["name"] == "cider-own" and r["where"] == {"id": ["cifar10"]})
    own["defects"] = ["npos.B12", "npos.B13"]
    found = list(rows_of(raw, "npos", "cifar10", "ResNet-18", "CIDER"))
    assert {row["because"] for row in found} == {
        "training cider-own+B12+B13: released.npos.B12 is true, published with false"}


def test_what_is_called_cider_has_its_dispersion():
    """On every ID set, in every configuration."""
    for name in ("config.yaml", "config/npos.yaml", "config/npos_small.yaml"):
        for one in yaml.safe_load((ROOT / name).read_text())["recipes"]:
            if "CIDER" in one["label"]:
                options = plugins.parse_options("methods", one["method"], one["options"], name)
                assert one["method"] == "npos" and options.weight == 0 < options.w_disp, (name, one["name"])


# ---------------------------------------------------------------- the files

def test_the_files_name_rows_and_metrics_that_exist():
    rows = catalogue.load(ROOT / "config" / "datasets.yaml") | setting.read([ROOT / "config" / "openood.yaml"]).datasets
    for path in printed.FOLDER.glob("*.yaml"):
        reference = printed.read(path.stem)
        named = {name for column in reference.sets for name in (*column.of, *sum(column.but_for.values(), []))}
        named |= {t.recipe.outliers.dataset for t in reference.trainings if t.recipe and t.recipe.outliers}
        assert named | {table.id for table in reference.tables} <= rows.keys()
        for table in reference.tables:
            assert {metric.partition("@")[0] for metric in table.metrics} <= METRICS.keys() | {"aupr"}


def test_a_row_of_the_table_is_its_images_not_its_place():
    row = likeness.shipped()["cifar10"]
    assert likeness.dataset(row.model_copy(update={"label": "X", "url": "elsewhere", "archive": "y"})) == \
        likeness.dataset(row)
    assert likeness.dataset(row.model_copy(update={"geometry": "squash64"})) != likeness.dataset(row)
