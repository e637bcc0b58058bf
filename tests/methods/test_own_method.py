"""A user's method file: what is checked before anything runs, what in training, and what its results depend on."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkout import ROOT
from tests.everyday_data import TINY
from tests.training.test_training import images
from workflow_scripts.config.load import placed
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.geometry import resize
from workflow_scripts.data.images.store import write_store
from workflow_scripts.data.reading import Images, array_blocks
from workflow_scripts.stages import train_network
from workflow_scripts.wiring import reports, training
from workflow_scripts.wiring.paths import Wildcards
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Plan
from workflow_scripts.work.starts import starts

GOOD = '''from dataclasses import dataclass
from torch import ones
from torch.nn import Parameter, functional
from part import half
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Method

SPEC = MethodSpec()


@dataclass(frozen=True)
class Options:
    weight: float = 0.5
    """A weight."""


class Mine(Method):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def loss(self, network, batch):
        logits = network(batch.images)
        return self.weight * functional.cross_entropy(logits, batch.labels) + half(logits.square().mean()), logits


def build(options, released):
    return Mine(options.weight)
'''
NORMALISE = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
TRAINING = {"epochs": 3, "batch_size": 16, "lr": 0.05, "schedule": {"name": "cosine"}}
MINE: dict[str, Any] = {"name": "mine", "label": "Mine", "method": "./mine.py", "normalise": NORMALISE,
                        "training": TRAINING}
VOS = {**MINE, "name": "vos", "method": "vos", "options": {"start": 2, "queue": 20, "sample_from": 50}}


@pytest.fixture
def work(tmp_path) -> Path:
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "part.py").write_text("def half(x):\n    return x / 2\n")
    return tmp_path


def planned(folder: Path, *recipes: dict[str, Any]) -> Plan:
    config = copy.deepcopy(TINY)
    config["recipes"] = list(recipes)
    config["experiments"] = [{"paper": "first", "id": "digits", "networks": ["net"], "scores": ["msp"],
                              "recipes": [recipe["name"] for recipe in recipes], "ood": {"far": ["faces"]}}]
    return read_plan(placed(config, folder), ROOT, {})


def of(name: str = "mine") -> Wildcards:
    class Given:
        paper = "first"

    given = Given()
    given.__dict__.update({"id": "digits", "network": "net", "recipe": name, "seed": "0"})
    return given


# -- before anything runs -------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("recipe", "message"), [
    ({"method": "./another.py"}, r"recipes\[0\].method: there is no file .*another.py; a path that begins with ./"),
    ({"method": "mine.py"}, r"recipes\[0\].method: there is no file mine.py; a path that begins with ./ is relative"),
    ({"options": {"wieght": 1.0}}, r"recipes\[0\].options.wieght: unknown key 'wieght'; did you mean 'weight'\?"),
    ({"options": {"weight": "much"}}, r"recipes\[0\].options.weight: Input should be a valid number"),
    ({"released": ["mine.1"]}, "released: 'mine.1' is not known"),
    ({"released": ["npos.B1"]}, "the method has no switch for 'npos.B1'"),
])
def test_a_wrong_recipe_is_refused_before_anything_runs(work, recipe, message):
    with pytest.raises(OODError, match=message) as error:
        planned(work, {**MINE, **recipe})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "message"), [
    (GOOD.replace("def build", "def make"), r"mine.py defines no build; a method file has a line such as "
     r"def build\(options, released\): \.\.\. \(docs/own.md\)"),
    (GOOD.replace("SPEC = MethodSpec()", ""), r"it defines no SPEC; expected a line such as SPEC = MethodSpec\(\)"),
    (GOOD.replace("MethodSpec()", "MethodSpec(outlier='always')"), "MethodSpec has no field 'outlier'; did you mean "
     "'outliers'"),
    (GOOD.replace("MethodSpec()", "MethodSpec(defects={'odd': 'a text'})"), "MethodSpec.defects: expected ids such as "
     "paper.1, .* found 'odd'"),
    (GOOD.replace("MethodSpec()", "MethodSpec(outliers=WHEN)"), "MethodSpec.outliers must be written out as a literal"),
    (GOOD.replace("= MethodSpec()", "= ScoreSpec(needs={'logits'})"), r"expected SPEC = MethodSpec\(\) with named "
     "fields, found SPEC = ScoreSpec"),
    (GOOD.replace("return Mine", "return return"), r"mine.py, line 29: no valid Python"),
    (GOOD.replace("weight: float", "weight: torch.Tensor"), "class Options is made without running the rest of the file"
     ".*NameError: name 'torch' is not defined"),
    (GOOD.replace("MethodSpec()", "MethodSpec(outliers='always')"), "trains against outliers; name them"),
])
def test_a_method_file_is_checked_without_running_it(work, text, message):
    (work / "mine.py").write_text("raise SystemExit('it was run')\n" + text)
    with pytest.raises(OODError, match=message) as error:
        planned(work, MINE)
    assert "\n" not in str(error.value) and "mine.py" in str(error.value)


def test_a_file_may_stand_where_scores_and_methods_do_and_nowhere_else(work):
    config = placed({**TINY, "networks": [{"name": "net", "model": "./mine.py"}]}, work)
    with pytest.raises(OODError, match=r"networks\[0\].model: '.*mine.py' is not known"):
        read_plan(config, ROOT, {})


# -- what results depend on -------------------------------------------------------------------------------------------

def test_a_change_of_the_file_concerns_its_recipe_alone(work):
    def code() -> dict[str, dict[str, str]]:
        from workflow_scripts.core import digest
        digest._digest.cache_clear()
        plan = planned(work, MINE, VOS)
        return {name: training.train_code(plan, of(name)) for name in ("mine", "vos")}

    first = code()
    assert {"own/mine.py", "own/part.py", "workflow_scripts/methods/base.py", "torch"} <= first["mine"].keys()
    assert "workflow_scripts/methods/vos.py" not in first["mine"] and "own/mine.py" not in first["vos"]
    (work / "mine.py").write_text("# a comment\n" + GOOD)
    assert code() == first
    for name, text in (("mine.py", GOOD.replace("= 0.5", "= 0.7")), ("part.py", "def half(x):\n    return x * 0.5\n")):
        (work / name).write_text(text)
        second = code()
        assert second["vos"] == first["vos"]
        assert {key for key in first["mine"] if first["mine"][key] != second["mine"][key]} == {f"own/{name}"}
        first = second


def test_the_manifest_names_its_code(work):
    section = json.loads(reports.manifest_section(planned(work, MINE, VOS), of()))
    assert {"own.mine", "methods.vos"} <= section["code"].keys() and "own/mine.py" in section["code"]["own.mine"]


def test_it_shares_no_first_epochs_whatever_it_says(work):
    """A copy of VOS says of itself that it begins as cross-entropy does, and as VOS."""
    copied = (ROOT / "workflow_scripts" / "methods" / "vos.py").read_text(encoding="utf-8")
    (work / "mine.py").write_text(copied.replace("functional.cross_entropy(logits, batch.labels)\n",
                                                 "functional.cross_entropy(2 * logits, batch.labels)\n"))
    mine, plain = {**VOS, **MINE, "options": VOS["options"]}, {**MINE, "name": "ce", "method": "cross_entropy"}
    assert starts(planned(work, mine, plain)) == {}
    assert {key.recipe for key in starts(planned(work, mine, VOS, plain))} == {"vos", "ce"}


# -- training ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("own") / "digits.train.h5"
    found = images(48)
    write_store(path, Images(found.labels.numpy(), [str(i) for i in range(48)], ("a", "b", "c"), {},
                             array_blocks(found.pixels.numpy(), 64)), torch.arange(48).numpy(), ("a", "b", "c"),
                {"dataset": "digits", "split": "train"}, lambda block: resize(block, geometry="native"))
    return str(path)


def trained(work: Path, data: str, method: str, **options: Any) -> dict[str, torch.Tensor]:
    """The weights that the stage writes, from the section that the workflow gives it."""
    plan = planned(work, {**MINE, "method": method, "options": options})
    out = work / f"{Path(method).stem}.pt"
    train_network.main(["--config", training.train_section(plan, of()), "--data", data, "--seed", "0", "--device",
                        "cpu", "--threads", "1", "--out", str(out)])
    return torch.load(out, weights_only=True)["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_stage_trains_by_it(work, data):
    first = trained(work, data, "./mine.py", weight=1.0)
    assert same(first, trained(work, data, "./mine.py", weight=1.0))
    assert not same(first, trained(work, data, "./mine.py"))
    (work / "plain.py").write_text(GOOD.replace(" + half(logits.square().mean())", ""))
    assert same(trained(work, data, "./plain.py", weight=1.0), trained(work, data, "cross_entropy"))


@pytest.mark.parametrize(("old", "new", "message"), [
    (", logits\n", "\n", r"loss gave Tensor for 16 images; return \(loss, logits\), a scalar to minimise and the "
     r"logits \(16, K\) of the ID images"),
    (".square().mean())", ".square())", r"loss gave \(\(16, 3\), \(16, 3\)\) for 16 images"),
    (", logits\n", ", logits[0]\n", r"loss gave \(\(\), \(3,\)\) for 16 images"),
    (", logits\n", ", None\n", r"loss gave \(\(\), NoneType\) for 16 images"),
    ("network(batch.images)", "network(batch.images).detach()", "the loss depends on nothing that is trained"),
    ("batch.labels", "batch.label", r"AttributeError: .*'label' \(.*mine.py, line 24\)"),
    ("return Mine(options.weight)", "return 3", "build gave int, expected an object of a class of yours"),
    ("return Mine(options.weight)", "return Mine(options.wait)", r"AttributeError: .*'wait' \(.*mine.py, line 28\)"),
    ("        self.weight = weight\n", "        self.weight = weight\n        self.scale = Parameter(ones(1))\n",
     r"its parameter 'scale' is in no group of parameter_groups, .*; name it there"),
    ("class Mine(Method):\n", "class Mine(Method):\n    outliers = True\n", "the method has outliers = True, its SPEC "
     "says otherwise"),
    ("from part import half", "from party import half", r"ModuleNotFoundError: No module named 'party' .*line 4\)"),
])
def test_a_method_that_does_not_train_ends_with_one_line(work, data, capsys, old, new, message):
    assert old in GOOD
    (work / "mine.py").write_text(GOOD.replace(old, new))
    with pytest.raises(SystemExit) as error:
        trained(work, data, "./mine.py")
    said = capsys.readouterr().err
    assert error.value.code == 1 and said.startswith(f"error: method file {work / 'mine.py'}: "), said
    assert said.count("\n") == 1 and re.search(message, said), said
