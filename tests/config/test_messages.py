"""The messages that users meet most, word for word: a change of their words is a change of this table, on purpose."""

from __future__ import annotations

import copy

import pytest
import yaml

from tests.checkout import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.work.expand import read_plan

RAW = yaml.safe_load((ROOT / "config.yaml").read_text())

MISTAKES = {  # a mistake in the default run's configuration, and the message up to the list of what is allowed
    "a misspelt key": (
        lambda raw: raw.update(sedes=[0]),
        "sedes: unknown key 'sedes'; did you mean 'seeds'?"),
    "a misspelt key of a recipe": (
        lambda raw: raw["recipes"][0].update(agument=[]),
        "recipes[0].agument: unknown key 'agument'; did you mean 'augment'?"),
    "a word for a number": (
        lambda raw: raw["recipes"][0]["training"].update(lr="fast"),
        "recipes[0].training.lr: Input should be a valid number, unable to parse string as a number (found 'fast')"),
    "a key that is left out": (
        lambda raw: raw["recipes"][0]["training"].pop("lr"),
        "recipes[0].training.lr: required but missing"),
    "a key's old name": (
        lambda raw: raw["recipes"][0].update(trunk=True),
        "recipes[0].trunk: 'trunk' is now called 'frozen_blocks'; write that, it means the same"),
    "a misspelt method": (
        lambda raw: raw["recipes"][0].update(method="cross_entopy"),
        "recipes[0].method: 'cross_entopy' is not known; did you mean 'cross_entropy'?"),
    "a misspelt architecture": (
        lambda raw: raw["networks"][0].update(model="resnet_cifr"),
        "networks[0].model: 'resnet_cifr' is not known; did you mean 'resnet_cifar'?"),
    "a misspelt option": (
        lambda raw: raw["networks"][0]["options"].update(widht=3),
        "networks[0].options.widht: unknown key 'widht'; did you mean 'width'?"),
    "a misspelt dataset": (
        lambda raw: raw["experiments"][0]["ood"].update(far=["facs"]),
        "experiments[0].ood.far: 'facs' is not known; did you mean 'faces'?"),
    "a misspelt score": (
        lambda raw: raw["experiments"][0]["scores"].append("enrgy"),
        "experiments[0].scores: 'enrgy' is not known; did you mean 'energy'?"),
    "a misspelt paper": (
        lambda raw: raw["experiments"][0].update(paper="posthok"),
        "experiments[0].paper: 'posthok' is not known; did you mean 'posthoc'?"),
    "a misspelt defect": (
        lambda raw: raw["recipes"][0].update(released=["npos.B99"]),
        "recipe 'pretrain'.released: 'npos.B99' is not known; did you mean 'npos.B7'?"),
    "two recipes of one name": (
        lambda raw: raw["recipes"].append({**raw["recipes"][0], "label": "Another"}),
        "experiments[0].recipes: 'pretrain' has 2 definitions for ID set 'digits' and network 'resnet-small'; exactly "
        "one must fit (key `where`)"),
    "two entries for one paper": (
        lambda raw: raw["papers"].append({**raw["papers"][0], "title": "Another"}),
        f"papers[{len(RAW['papers'])}].name: 'posthoc' has an entry already; join the two"),
    "an ID set among the OOD sets": (
        lambda raw: raw["experiments"][0]["ood"].update(far=["digits"]),
        "experiments[0].ood.far: 'digits' is the ID set of this experiment"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_a_user_reads(mistake):
    make, expected = MISTAKES[mistake]
    raw = copy.deepcopy(RAW)
    make(raw)
    with pytest.raises(OODError) as error:
        read_plan(raw, ROOT, {})
    said, *allowed = str(error.value).split(" Allowed")
    assert said.removesuffix(".") == expected.removesuffix(".")
    assert bool(allowed) == expected.endswith("?")
