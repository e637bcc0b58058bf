"""Trainings whose first epochs are the same share them, and end with the bits of trainings of their own."""

from __future__ import annotations

import copy
import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest
import torch

from tests import typed
from tests.checkout import ROOT
from tests.everyday_data import TINY
from tests.methods.test_resample import RECIPE, wide
from tests.training.test_training import images
from workflow_scripts.core import plugins, specs
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.geometry import resize
from workflow_scripts.data.images.store import write_store
from workflow_scripts.data.reading import Images, array_blocks
from workflow_scripts.methods import cross_entropy
from workflow_scripts.planning import networks
from workflow_scripts.planning.dag import Job
from workflow_scripts.planning.estimate import Estimator
from workflow_scripts.planning.measured import Measured
from workflow_scripts.stages import train_network, train_start
from workflow_scripts.training.loop import Training
from workflow_scripts.wiring import paths, training
from workflow_scripts.wiring.paths import Wildcards
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Plan, Trained
from workflow_scripts.work.starts import starts

_NPOS: dict[str, Any] = {
    "name": "npos", "label": "NPOS", "method": "npos", "views": 2, "augment": [{"horizontal_flip": 0.5}],
    "options": {"start": 2, "queue": 20, "K": 5, "select": 8, "sample_from": 12, "keep": 3, "hidden": 7,
                "projection": 6, "snapshots": [4]},
    "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    "validation": {"count": 6, "seed": 0}, "keep": "best",
    "training": {"epochs": 4, "batch_size": 16, "lr": 0.05, "weight_decay": 1e-3, "drop_last": True,
                 "schedule": {"name": "cosine"}}}
_VOS = {**_NPOS, "name": "vos", "label": "VOS", "method": "vos", "views": 1,
        "options": {"start": 2, "queue": 20, "sample_from": 50}}
RECIPES = [
    _NPOS,
    {**_NPOS, "name": "npos1", "released": ["npos.B1"]},
    {**_NPOS, "name": "npos2", "released": ["npos.B2", "npos.B5"]},
    {**_NPOS, "name": "npos12", "released": ["npos.B1", "npos.B2"], "label": "as released"},
    {**_NPOS, "name": "sigma", "options": {**_NPOS["options"], "sigma": 0.2, "hidden": 9}},
    {**_NPOS, "name": "cider", "options": {"weight": 0.0, "projection": 6, "queue": 999}},
    _VOS,
    {**_VOS, "name": "ce", "method": "cross_entropy", "options": {}},
]


def planned(*recipes: dict[str, Any], **changes: Any) -> Plan:
    config = copy.deepcopy(TINY)
    config["recipes"] = [copy.deepcopy(recipe) for recipe in recipes]
    config["experiments"] = [{"paper": "first", "id": "digits", "networks": ["net"], "scores": ["msp"],
                              "recipes": [recipe["name"] for recipe in recipes], "ood": {"far": ["faces"]}}]
    return read_plan(config | changes, ROOT, {})


def of(plan: Plan, name: str) -> Trained:
    return next(run for run in plan.runs.values() if run.recipe.name == name)


PLAN = planned(*RECIPES)


def test_what_is_the_same_at_first_is_one_start():
    found = {key.recipe.partition("+")[0]: start.name for key, start in starts(PLAN).items()}
    assert set(found) == {recipe["name"] for recipe in RECIPES}
    first, second = found["npos"], found["vos"]
    assert {name for name, start in found.items() if start == first} == {
        "npos", "npos1", "npos2", "npos12", "sigma", "cider"}
    assert found["ce"] == second != first and first.startswith("npos-") and second.startswith("vos-")


def options(name: str, **changes: Any) -> dict[str, Any]:
    recipe = copy.deepcopy(next(recipe for recipe in RECIPES if recipe["name"] == name))
    recipe["options"] |= changes
    return recipe


def names(*recipes: dict[str, Any], **changes: Any) -> list[str]:
    return [start.name for start in starts(planned(*recipes, **changes)).values()]


def test_a_start_depends_on_what_counts_before_it_ends_and_on_nothing_else():
    one = names(_NPOS)
    for change in ({"sigma": 0.3}, {"K": 4}, {"weight": 0.5}, {"snapshots": []}, {"phi_lr": 0.2}):
        assert names(options("npos", **change)) == one
    for change in ({"start": 1}, {"queue": 21}, {"momentum": 0.5}, {"projection": None}, {"w_disp": 1.0}):
        assert names(options("npos", **change)) != one
    assert names({**_NPOS, "label": "Other", "name": "other"}) == one
    assert names({**_NPOS, "views": 1}) != one
    assert names({**_NPOS, "training": {**_NPOS["training"], "epochs": 5}}) != one
    assert names({**_NPOS, "released": ["npos.B13"]}) != one  # of the schedule, from the first step


@pytest.mark.parametrize(("recipes", "changes"), [
    ([RECIPES[5]], {}),  # no other training says where its start would end
    ([RECIPES[7]], {}),
    ([options("npos", start=0)], {}),
    ([_NPOS], {"limit": {"images": 48, "steps": 3}}),
    ([_NPOS], {"networks": [{"name": "net", "model": "wide_resnet", "options": {"depth": 10, "widen": 1}}]}),
], ids=["cider alone", "cross-entropy alone", "from the first step", "cut short", "dropout"])
def test_what_has_no_start(recipes, changes):
    assert starts(planned(*recipes, **changes)) == {}


def test_a_network_without_dropout_of_a_kind_that_can_have_it_has_one():
    net = {"name": "net", "model": "wide_resnet", "options": {"depth": 10, "widen": 1, "dropout": 0.0}}
    assert len(names(_NPOS, networks=[net])) == 1


def test_each_declaration_names_options_that_there_are():
    for name in plugins.names("methods"):
        spec: specs.MethodSpec = plugins.spec("methods", name)
        known = {row[0] for row in plugins.fields("methods", name)}
        asked = {*spec.late, *spec.gathered, *filter(None, [spec.late_from])}
        asked |= {option for option in spec.never_late if option not in spec.switches}
        assert asked <= known and set(spec.late_defects) <= set(spec.switches)
        assert bool(spec.late_from) == bool(spec.late)


# -- the stages -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("starts") / "digits.train.h5"
    found = images(102)
    write_store(path, Images(found.labels.numpy(), [str(i) for i in range(102)], ("a", "b", "c"), {},
                             array_blocks(found.pixels.numpy(), 64)), torch.arange(102).numpy(), ("a", "b", "c"),
                {"dataset": "digits", "split": "train"}, lambda block: resize(block, geometry="native"))
    return str(path)


def wildcards(run: Trained, **more: Any) -> Wildcards:
    class Given:
        pass

    given = Given()
    given.__dict__.update({**run.key._asdict(), **more})
    return given


def words(config: str, data: str, out: Path, *more: str) -> list[str]:
    return ["--config", config, "--data", data, "--seed", "0", "--device", "cpu", "--threads", "1", "--out", str(out),
            *more]


def make_start(plan: Plan, run: Trained, data: str, folder: Path) -> str:
    start = starts(plan)[run.key]
    out = folder / Path(paths.start(plan, start)).parent.name / "seed0.pt"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        train_start.main(words(training.start_section(plan, wildcards(run, start=start.name)), data, out))
    return str(out)


def trained(plan: Plan, name: str, data: str, folder: Path, *more: str, alone: bool = False) -> dict[str, Any]:
    """The checkpoint and the record of a training."""
    run = of(plan, name)
    section = json.loads(training.train_section(plan, wildcards(run)))
    if alone:
        section["start"] = None
    else:
        more = ("--start", make_start(plan, run, data, folder), *more)
    out, record = folder / f"{name}-{alone}.pt", folder / f"{name}-{alone}.h5"
    train_network.main(words(json.dumps(section), data, out, "--record", str(record), *more))
    content = torch.load(out, weights_only=True)
    with h5py.File(record) as file:
        arrays: dict[str, Any] = {}
        file.visititems(lambda key, item: arrays.update({key: torch.from_numpy(item[:])})
                        if isinstance(item, h5py.Dataset) else None)
    return {**content["state_dict"], **arrays, "about": content["about"]}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.mark.parametrize("name", [recipe["name"] for recipe in RECIPES])
def test_the_result_has_the_bits_of_a_training_of_its_own(name, data, folder, capsys):
    shared = trained(PLAN, name, data, folder)
    said = capsys.readouterr().out
    alone = trained(PLAN, name, data, folder, alone=True)
    assert same(shared, alone)
    assert said.count("epoch 4/4") == 1 and "epoch 1/4" not in said.rpartition("epoch 3/4")[2]


def test_the_trainings_do_differ_in_the_end(data, folder):
    ends = [trained(PLAN, name, data, folder) for name in ("npos", "npos1", "npos2", "sigma", "cider")]
    weights = [next(value for name, value in end.items() if name.startswith("conv")) for end in ends]
    assert not any(torch.equal(one, other) for i, one in enumerate(weights) for other in weights[:i])


@pytest.mark.parametrize("stop", [3, 14, 15])
def test_both_parts_go_on_after_a_signal(stop, data, tmp_path, monkeypatch, folder):
    """Three steps are in the start, which has twelve, the others in what follows."""
    step = Training._step

    def stopping(self, batch):
        step(self, batch)
        if self.done == stop:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_step", stopping)
        with pytest.raises(SystemExit):
            trained(PLAN, "npos", data, tmp_path)
    assert [path.name for path in tmp_path.rglob("*.resume")] == ["seed0.pt.resume" if stop < 12 else
                                                                  "npos-False.pt.resume"]
    assert same(trained(PLAN, "npos", data, tmp_path), trained(PLAN, "npos", data, folder))
    assert not list(tmp_path.rglob("*.resume"))


def changed(path: str, **identity: Any) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({**content, "identity": {**content["identity"], **identity}}, path)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: changed(path, code={"x": "y"}), "first epochs of another training (code changed); delete it"),
    (lambda path: changed(path, seed=3, threads=9), "first epochs of another training (seed, threads changed)"),
    (lambda path: changed(path, configuration="{}"), "first epochs of another training (configuration changed)"),
    (lambda path: Path(path).write_bytes(Path(path).read_bytes()[:900]), "no first epochs of a training ("),
    (lambda path: Path(path).unlink(), "the first epochs are not there; the stage train_start trains them"),
], ids=["code", "seed", "configuration", "cut off", "gone"])
def test_another_start_is_refused(spoil, message, data, tmp_path, capsys):
    start = make_start(PLAN, of(PLAN, "npos"), data, tmp_path)
    spoil(start)
    section = training.train_section(PLAN, wildcards(of(PLAN, "npos")))
    with pytest.raises(SystemExit):
        train_network.main(words(section, data, tmp_path / "x.pt", "--start", start))
    said = capsys.readouterr().err
    assert message in said and said.startswith(f"error: {start}: ") and said.count("\n") == 1
    assert not (tmp_path / "x.pt").exists()


def test_a_network_that_draws_has_no_start():
    network = wide()
    method = cross_entropy.build(cross_entropy.Options(), ())
    run = Training(network, method, images(), typed.recipe(RECIPE), 0)
    with pytest.raises(OODError, match=r"draws random numbers in training.*ModelSpec\(draws=\('always',\)\)"):
        run.start(1, report=lambda line: None)


def test_epochs_that_are_shared_are_planned_once():
    found = {key.recipe: start for key, start in starts(PLAN).items()}
    estimator = Estimator(PLAN, networks.load(), Measured(Path("nowhere"), "results/x"), "cpu")
    run = of(PLAN, "npos")

    def job(kind: str) -> Job:
        return Job("x", (), (), "", "", kind, True, SimpleNamespace(), run)

    whole, first, rest = estimator.training(run), estimator.trained(job("starts")), estimator.trained(job("models"))
    assert (first.epochs, rest.epochs) == (found["npos"].epochs, whole.epochs - found["npos"].epochs) == (2, 2)
    assert first.images + rest.images == whole.images and first.steps + rest.steps == whole.steps


def test_two_networks_of_one_kind_share_nothing():
    """Their parents are other files."""
    nets = [{**TINY["networks"][0], "name": name} for name in ("net", "twin")]
    config = copy.deepcopy(TINY) | {"recipes": [_NPOS, RECIPES[5]], "networks": nets}
    config["experiments"] = [{"paper": "first", "id": "digits", "networks": [net], "scores": ["msp"],
                              "recipes": [recipe], "ood": {"far": ["faces"]}}
                             for net, recipe in (("net", "npos"), ("twin", "cider"))]
    assert [key.network for key in starts(read_plan(config, ROOT, {}))] == ["net"]
