"""The configuration: what it refuses and how it says so, and what it expands to."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests import typed
from tests.conftest import ROOT
from workflow_scripts.config import reference
from workflow_scripts.config.fidelity import defects, resolve, suffix
from workflow_scripts.config.load import load_config, with_includes
from workflow_scripts.core import plugins, specs
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.augment import OPERATIONS, augment
from workflow_scripts.wiring import evaluation, training
from workflow_scripts.work.expand import read_plan

CONFIGS = [ROOT / "config.yaml",
           *(p for p in sorted((ROOT / "config").glob("*.yaml")) if "\nvariant:" in p.read_text())]


def small(*papers: str) -> dict:
    """The default configuration with what it includes, restricted to some papers (posthoc, himplos and goe)."""
    raw = with_includes(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT)
    del raw["include"]
    papers = papers or ("posthoc", "himplos", "goe")
    raw["experiments"] = [e for e in raw["experiments"] if e["paper"] in papers]
    raw["papers"] = [p for p in raw["papers"] if p["name"] in papers]
    used = {name for e in raw["experiments"] for name in e["recipes"]}
    for recipe in reversed(raw["recipes"]):  # a recipe stands after those it starts from
        if recipe["name"] in used:
            used |= {recipe.get("parent"), recipe.get("outliers", {}).get("select", {}).get("weights")}
    raw["recipes"] = [r for r in raw["recipes"] if r["name"] in used]
    return raw


def changed(**changes) -> dict:
    return {**small(), **changes}


def with_entry(key: str, **changes) -> dict:
    """The default configuration with keys of the first entry of a list changed."""
    raw = small()
    raw[key][0].update(changes)
    return raw


def of_recipe(name: str, **changes) -> dict:
    """The default configuration with keys of the recipe of that name changed."""
    raw = small()
    next(r for r in raw["recipes"] if r["name"] == name).update(changes)
    return raw


ROWS = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text())
NOISE_AGAIN = {**ROWS["blobs"], "splits": {"train": ROWS["blobs"]["splits"]["test"]}}
FEW = {**ROWS["pool"], "counts": {"train": 31}}

# (configuration, what the one line must say)
REFUSED = [
    (changed(sedes=3), r"^sedes: unknown key 'sedes'; did you mean 'seeds'\? Allowed here: .*variant"),
    (changed(seeds=0), r"^seeds: at least one seed"),
    (changed(seeds=[1, 1]), r"^seeds: at least one seed, each once"),
    (changed(device="gpu"), r"^device: Input should be 'auto', 'cpu' or 'cuda' \(found 'gpu'\)"),
    (changed(variant="a b"), r"^variant: .*\(found 'a b'\)"),
    (changed(threads="two"), r"^threads: .*valid integer.*\(found 'two'\)"),
    (changed(experiments=[]), r"^experiments: .*at least 1"),
    (changed(include=["config/none.yaml"]), r"^include: there is no file config/none.yaml"),
    (changed(data_root="no/such/folder"), r"^data_root: there is no folder .*/no/such/folder"),
    (with_entry("networks", model="resnet_cifer"),
     r"^networks\[0\].model: 'resnet_cifer' is not known; did you mean 'resnet_cifar'"),
    (with_entry("networks", options={"widht": 3}),
     r"^networks\[0\].options.widht: unknown key 'widht'; did you mean 'width'"),
    (with_entry("networks", options={"width": 0}), r"^networks\[0\].options.width: .*greater than 0 \(found 0\)"),
    (with_entry("recipes", method="crossentropy"),
     r"^recipes\[0\].method: 'crossentropy' is not known; did you mean 'cross_entropy'"),
    (with_entry("recipes", parent="pretrain"), r"pretrain -> pretrain goes round in a circle"),
    (with_entry("recipes", parent="none"), r"key parent: 'none' is not known"),
    (with_entry("recipes", released=["npos.B1"]),
     r"recipe 'pretrain'.released: the method has no switch for 'npos.B1'"),
    (with_entry("recipes", released=["npos.B21"]),
     r"recipe 'pretrain'.released: 'npos.B21' is not known; did you mean"),
    (with_entry("recipes", normalise="per_imag"), r"^recipes\[0\].normalise: .*'per_image' \(found 'per_imag'\)"),
    (with_entry("recipes", augment=[{"random_crp": 4}]),
     r"^recipes\[0\].augment\[0\]: one of random_crop, horizontal_flip, color_jitter, grayscale, random_resized_crop"),
    (with_entry("recipes", augment=[{"grayscale": 1.5}]),
     r"^recipes\[0\].augment\[0\].grayscale: .*less than or equal to 1 \(found 1.5\)$"),
    (with_entry("recipes", augment=[{"color_jitter": {"hue": 0.6}}]),
     r"^recipes\[0\].augment\[0\].color_jitter.hue: .*less than or equal to 0.5 \(found 0.6\)$"),
    (with_entry("recipes", augment=[{"color_jitter": {"brightnes": 0.4}}]),
     r"^recipes\[0\].augment\[0\].color_jitter.brightnes: unknown key 'brightnes'; did you mean 'brightness'"),
    (with_entry("recipes", augment=[{"random_resized_crop": {"size": 32, "scale": [0.0, 1.0]}}]),
     r"^recipes\[0\].augment\[0\].random_resized_crop.scale\[0\]: .*greater than 0"),
    (with_entry("recipes", augment=[{"random_resized_crop": {"size": 32, "ratio": [2, 1]}}]),
     r"^recipes\[0\].augment\[0\].random_resized_crop: .*scale and ratio are \[smallest, largest\]"),
    (with_entry("recipes", augment=[{"random_crop": 4, "grayscale": 0.2}]),
     r"^recipes\[0\].augment\[0\].grayscale: unknown key"),
    (with_entry("recipes", training={"epochs": 1}), r"recipes\[0\].training.lr: required but missing"),
    (with_entry("scores", name="mps"), r"scores\[0\].name: 'mps' is not known; did you mean 'msp'"),
    (with_entry("experiments", id="digit"), r"^experiments\[0\].id: 'digit' is not known; did you mean 'digits'"),
    (with_entry("experiments", id="faces"), r"^experiments\[0\].id: dataset 'faces' has no train split"),
    (with_entry("experiments", networks=["resnet"]),
     r"^experiments\[0\].networks: 'resnet' is not known; did you mean 'resnet-small'"),
    (with_entry("experiments", networks=[]), r"^experiments\[0\].networks: .*at least 1"),
    (with_entry("experiments", scores=["enrgy"]),
     r"^experiments\[0\].scores: 'enrgy' is not known; did you mean 'energy'"),
    (with_entry("experiments", ood={"far": ["digits"]}), r"^experiments\[0\].ood.far: 'digits' is the ID set"),
    (with_entry("experiments", ood={"far": ["faces"], "near": ["faces"]}), r"'faces' stands there twice"),
    (with_entry("experiments", ood={"far": []}), r"^experiments\[0\].ood: no OOD set"),
    (changed(fidelity={"released": ["npos.B99"]}), r"^fidelity.released: 'npos.B99' is not known"),
    (changed(fidelity={"relased": []}), r"^fidelity.relased: unknown key 'relased'; did you mean 'released'"),
    (of_recipe("goe", outliers={"dataset": "faces", "batch_size": 32}),
     r"^recipe 'goe', key outliers.dataset: dataset 'faces' has no train split"),
    (of_recipe("goe", outliers={"dataset": "digits", "batch_size": 32}),
     r"^recipe 'goe', key outliers.dataset: 'digits' is the ID set of 'digits'; training on it"),
    ({**of_recipe("goe", outliers={"dataset": "noise", "batch_size": 32}), "datasets": {"noise": NOISE_AGAIN}},
     r"^recipe 'goe', key outliers.dataset: 'noise' is an OOD test set of 'digits' \(both are the images of 'blobs'\)"),
    ({**of_recipe("goe", outliers={"dataset": "few", "batch_size": 32}), "datasets": {"few": FEW}},
     r"^recipe 'goe', key outliers.batch_size: 32 is more than the 31 images of 'few'"),
    (of_recipe("goe", options={"filter": "top", "k": 33}),
     r"^recipe 'goe', key options.k: filter 'top' cannot use k = 33 with outliers.batch_size 32"),
    (of_recipe("goe", options={"filter": "static", "k": 65}),
     r"^recipe 'goe', key options.k: filter 'static' cannot use k = 65 with training.batch_size 64"),
    (changed(datasets={"mine": {"reader": "imges", "splits": {"test": {}}}}),
     r"mine.*'imges' is not known; did you mean 'images'"),
]


@pytest.mark.parametrize(("raw", "message"), REFUSED, ids=[m[:60] for _, m in REFUSED])
def test_refused_with_one_line_that_names_the_key(raw, message):
    with pytest.raises(OODError, match=message) as caught:
        read_plan(raw, ROOT, {})
    assert all(len(line) < 1200 for line in str(caught.value).splitlines())


def one_experiment() -> dict:
    """The default configuration with its first experiment alone."""
    return changed(experiments=small()["experiments"][:1])


def test_two_definitions_of_one_recipe_are_refused_unless_where_tells_them_apart():
    raw = one_experiment()
    raw["recipes"].append({**raw["recipes"][0], "label": "another"})
    with pytest.raises(OODError, match="'pretrain' has 2 definitions for ID set 'digits'"):
        read_plan(raw, ROOT, {})
    raw["recipes"][-1]["where"] = {"id": ["cifar10"]}
    raw["recipes"][0]["where"] = {"id": ["digits"]}
    assert {run.recipe.label for run in read_plan(raw, ROOT, {}).runs.values()} == {raw["recipes"][0]["label"]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_shipped_configurations_are_valid(path):
    plan = read_plan(yaml.safe_load(path.read_text()), ROOT, {})
    assert plan.runs and plan.papers


@pytest.mark.parametrize("path", CONFIGS[1:], ids=lambda p: p.name)
def test_a_full_configuration_holds_nothing_of_the_default_run(path):
    ours, theirs = (read_plan(yaml.safe_load(p.read_text()), ROOT, {}) for p in (CONFIGS[0], path))
    assert ours.config.variant != theirs.config.variant
    assert not ours.runs.keys() & theirs.runs.keys()
    assert not set(ours.used_datasets()) & set(theirs.used_datasets())
    assert not {n.name for n in ours.config.networks} & {n.name for n in theirs.config.networks}


def test_no_variant_is_named_twice():
    variants = [yaml.safe_load(p.read_text())["variant"] for p in CONFIGS]
    assert variants.count("small") == 1


def test_augmentation_reaches_the_job_with_its_defaults():
    raw = with_entry("recipes", augment=[{"random_resized_crop": {"size": 32, "scale": [0.2, 1]}},
                                         {"color_jitter": {"brightness": 0.4, "p": 0.8}}, {"grayscale": 0.2},
                                         {"horizontal_flip": 0.5}, {"random_crop": 4}, {"random_crop": {"size": 28}}])
    steps = [step.model_dump(mode="json") for step in load_config(raw, ROOT).recipes[0].augment]
    assert steps == [
        {"random_resized_crop": {"size": 32, "scale": [0.2, 1.0], "ratio": [3 / 4, 4 / 3]}},
        {"color_jitter": {"brightness": 0.4, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "p": 0.8}},
        {"grayscale": 0.2}, {"horizontal_flip": 0.5}, {"random_crop": 4}, {"random_crop": {"size": 28, "padding": 0}}]
    images = torch.randint(0, 256, (3, 40, 40, 3), dtype=torch.uint8)
    assert set(OPERATIONS) == {name for step in steps for name in step}
    assert augment(images, typed.steps(steps), 0, 0, torch.arange(3)).shape == (3, 28, 28, 3)


def test_seeds_as_a_count_or_a_list():
    assert load_config(changed(seeds=3), ROOT).seeds == [0, 1, 2]
    assert load_config(changed(seeds=[4, 2]), ROOT).seeds == [4, 2]
    assert {key[3] for key in read_plan(changed(seeds=3), ROOT, {}).runs} == {0, 1, 2}


@pytest.mark.parametrize(("text", "message"), [
    ("seeds: [1", ", line 1: not valid YAML"), ("- seeds", ": a mapping of keys expected"),
    (b"seeds: 1\ntitle: \xff", ", line 2: not UTF-8"), ("seeds: 1\nseeds: 2", ": the key 'seeds' is given twice")])
def test_an_included_file_that_cannot_be_read_is_named(tmp_path, text, message):
    (tmp_path / "below.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OODError, match=f"below.yaml{message}"):
        with_includes({"include": ["below.yaml"]}, tmp_path)


def test_include_joins_lists_and_the_including_file_wins(tmp_path):
    (tmp_path / "below.yaml").write_text(yaml.safe_dump(small()))
    raw = {"include": ["below.yaml"], "variant": "mine", "scores": [{"name": "max_logit"}]}
    config = load_config(raw, tmp_path)
    assert config.variant == "mine" and [s.name for s in config.scores][-1] == "max_logit"
    assert len(config.scores) == len(small()["scores"]) + 1
    (tmp_path / "below.yaml").write_text(yaml.safe_dump({**small(), "include": ["below.yaml"]}))
    with pytest.raises(OODError, match="goes round in a circle"):
        load_config(raw, tmp_path)


def test_parents_are_trained_too():
    raw = one_experiment()
    raw["recipes"].append({**raw["recipes"][0], "name": "tuned", "label": "tuned", "parent": "pretrain"})
    raw["experiments"][0]["recipes"] = ["tuned"]
    plan = read_plan(raw, ROOT, {})
    assert {key[2] for key in plan.runs} == {"pretrain", "tuned"}
    assert plan.runs["digits", "resnet-small", "tuned", 0].parent == "pretrain"
    assert {run.path_name for run in plan.reported("posthoc")} == {"tuned"}


def test_released_defects_become_part_of_the_path():
    assert resolve([], [], ("npos.B1",), "r") == ()
    assert resolve(["npos.B1"], ["npos.B2"], ("npos.B1", "npos.B2"), "r") == ("npos.B1", "npos.B2")
    assert resolve(["npos.B1"], [], (), "r") == ()
    assert suffix(("npos.B1", "npos.B2")) == "+B1+B2" and suffix(()) == "" and suffix(("goe.2g-2",)) == "+2g-2"


def test_a_switch_asked_for_everywhere_must_concern_some_recipe():
    with pytest.raises(OODError, match="no recipe of this configuration has a switch for 'npos.B1'"):
        read_plan(changed(fidelity={"released": ["npos.B1"]}), ROOT, {})


def test_each_defect_is_described_once():
    described = [defect for package in specs.KINDS for name in plugins.names(package)
                 for defect in getattr(plugins.spec(package, name), "defects", ())]
    assert len(described) == len(set(described)) >= 16
    for name in plugins.names("methods"):
        assert set(plugins.spec("methods", name).switches) <= defects().keys() == set(described)


def test_sections_are_plain_json_and_hold_every_default():
    plan = read_plan(small(), ROOT, {})
    wildcards = SimpleNamespace(id="digits", network="resnet-small", recipe="pretrain", seed="0", score="energy")
    section = json.loads(training.train_section(plan, wildcards))
    assert section["network"]["options"] == {"blocks": [1, 1, 1, 1], "width": 16}
    assert section["recipe"]["training"]["momentum"] == 0.9
    assert "label" not in section["recipe"]
    assert json.loads(evaluation.score_section(plan, wildcards))["options"] == {"temperature": 1.0}


def test_reference_page_is_up_to_date():
    reference.main(["--check"])


def test_every_option_is_documented():
    for package in ("models", "methods", "scores", "data.readers"):
        for name in plugins.names(package):
            for field, _, _, text in plugins.fields(package, name):
                assert text, f"{package}.{name}.{field} has no docstring"
            plugins.options_class(package, name)  # can be read without importing the module


def test_every_key_of_the_default_configuration_is_commented():
    """Above each top-level key stands a comment, or one that also covers the keys right above it."""
    lines = (ROOT / "config.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line and line[0].isalpha():
            above = number
            while above and lines[above - 1] and lines[above - 1][0].isalpha():
                above -= 1
            assert lines[above - 1].startswith("#"), line
