"""Rates of machines: each for the networks and the precision it was measured with; our own benchmark goes first."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from tests.checkout import ROOT
from workflow_scripts import plan as command
from workflow_scripts.core.errors import OODError
from workflow_scripts.planning import networks, setting
from workflow_scripts.planning.dag import Job
from workflow_scripts.planning.estimate import Estimator
from workflow_scripts.planning.measured import Measured
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.starts import starts

COSTS = networks.load()
LEAN = ("imagenet100_squash", "cifar10_128", "cifar100_128", "imagenet_subset_128")


def row(model: str, **options):
    return next(one for one in COSTS.networks if one.model == model and options.items() <= one.options.items())


RESNET18 = row("resnet_cifar", blocks=[2, 2, 2, 2])
RESNET50 = row("torchvision_imagenet", architecture="resnet50")
NETWORKS = {
    "ResNet-18": RESNET18, "ResNet-34": row("resnet_cifar", blocks=[3, 4, 6, 3]),
    "narrow ResNet": row("resnet_cifar", width=16), "WRN-40-2": row("wide_resnet"), "DenseNet": row("densenet_bc"),
    "ResNet-50": RESNET50, "ResNet-18 at 224": row("torchvision_imagenet", architecture="resnet18"),
    "CLIP": row("clip_vit"), "BiT": row("bit")}


def measured_rows() -> dict:
    given = json.loads((ROOT / "docs/gpu_check.json").read_text())
    return {(one["section"], one["name"]): one for one in given["rows"]}


@pytest.mark.parametrize(("network", "precision", "tflops", "origin"), [
    ("ResNet-18", "bfloat16", 76.9, "sourced"),  # 32.3 PFLOP in 7 minutes
    ("ResNet-34", "bfloat16", 76.9, "sourced"),
    ("ResNet-50", "bfloat16", 2470 * 8.174e-3 * 3, "sourced"),
    ("ResNet-50", "tf32", 938 * 8.174e-3 * 3, "sourced"),
    ("CLIP", "bfloat16", 443 * 70.7e-3 * 3, "sourced"),
    ("ResNet-18", "float32", 10, "assumed"),
    ("ResNet-18", "tf32", 10, "assumed"),
    ("narrow ResNet", "bfloat16", 20, "assumed"),
    ("WRN-40-2", "bfloat16", 20, "assumed"),
    ("DenseNet", "bfloat16", 20, "assumed"),
    ("BiT", "bfloat16", 20, "assumed"),
    ("ResNet-18 at 224", "bfloat16", 20, "assumed"),
])
def test_a_rate_holds_for_the_networks_and_the_precision_it_was_measured_with(network, precision, tflops, origin):
    found = COSTS.rate(COSTS.machine("a100"), NETWORKS[network], "cross_entropy", precision)
    assert (found.gflops / 1000, found.origin) == (pytest.approx(tflops, rel=1e-3), origin)
    assert found.source


def test_a_rate_in_images_counts_the_network_as_the_table_does():
    rates = [rate for machine in COSTS.machines.values() for rate in machine.rates if rate.kind == "imagenet_resnet"]
    assert rates and {rate.each for rate in rates} == {RESNET50.gflops}
    for timed in COSTS.benchmark_rows:
        assert any(timed.network.fits(one.model, one.options, one.side) and one.gflops == timed.each
                   for one in COSTS.networks), timed.name
    layer = 12 * 768 ** 2 * 384 + 2 * 384 ** 2 * 768  # multiply-adds of BERT-base, 384 tokens
    rates = [rate for machine in COSTS.machines.values() for rate in machine.rates if rate.kind == "transformer"]
    assert rates and {rate.each for rate in rates} == {round(2 * 12 * layer / 1e9, 1)}


def test_our_benchmark_goes_first_on_its_card_and_nowhere_else():
    def found(machine, network, method, precision):
        return COSTS.rate(COSTS.machine(machine), NETWORKS[network], method, precision)

    rows = measured_rows()
    loop = found("h200", "ResNet-18", "cross_entropy", "float32")
    assert loop.gflops == pytest.approx(rows["loops", "the training loop"]["images/s"] * RESNET18.gflops * 3)
    npos = found("h200", "ResNet-18", "npos", "float32")
    assert npos.gflops == pytest.approx(rows["papers' steps", "npos: ResNet-18, NPOS"]["float32, images/s"]
                                        * RESNET18.gflops * 3)
    assert (loop.origin, npos.origin) == ("benchmark", "benchmark") and "docs/gpu_check.json" in npos.source
    assert found("h200", "ResNet-34", "npos", "float32") == npos  # operations a second, not images
    assert found("h100", "ResNet-18", "npos", "float32").origin == "assumed"
    assert found("h200", "CLIP", None, "bfloat16").origin == "assumed"


def test_every_row_that_the_table_names_stands_in_the_benchmark_file_or_was_not_reached():
    rows = measured_rows()
    absent = {one.name for one in COSTS.benchmark_rows if (one.section, one.name) not in rows}
    assert absent == {"ResNet-101 224, float32", "ResNet-50 224, TF32", "ResNet-50 224, float32"}  # no time was left
    assert all(column in rows[one.section, one.name] for one in COSTS.benchmark_rows if one.name not in absent
               for column in one.columns.values())


def test_a_benchmark_file_of_ones_own_replaces_the_rates_of_its_card(tmp_path):
    path = tmp_path / "gpu_check.json"
    path.write_text(json.dumps({"about": {"card": "NVIDIA A100-SXM4-80GB"}, "rows": [
        {"section": "loops", "name": "the training loop, bfloat16", "batch": 128, "images/s": 9000.0},
        {"section": "loops", "name": "the training loop", "status": "no time left"}]}))
    own = COSTS.measured(path, "mine")
    bfloat16 = own.rate(own.machine("a100"), RESNET18, "cross_entropy", "bfloat16")
    assert (bfloat16.gflops, bfloat16.origin) == (pytest.approx(9000 * RESNET18.gflops * 3), "benchmark")
    assert own.rate(own.machine("a100"), RESNET18, "cross_entropy", "float32").origin == "assumed"
    assert COSTS.rate(COSTS.machine("a100"), RESNET18, None, "bfloat16").origin == "sourced"


@pytest.mark.parametrize(("text", "said"), [
    (None, "there is no such benchmark file; python -m benchmarks.gpu_check writes one"),
    ("[1", "a file that python -m benchmarks.gpu_check writes expected"),
    ("[]", "a file that python -m benchmarks.gpu_check writes expected"),
    ('{"about": {}, "rows": []}', "about.card: the name of a GPU expected, found none"),
])
def test_another_file_is_refused(tmp_path, text, said):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OODError, match=said):
        COSTS.measured(path, "x.json")


def test_a_step_takes_at_least_what_the_training_loop_took():
    card, plain = COSTS.machine("a100"), COSTS.machine("gpu")
    densenet = NETWORKS["DenseNet"]
    assert COSTS.least_step(card, densenet, "goe", 384) == pytest.approx(128 / 2606.77, rel=1e-4)
    assert COSTS.least_step(card, RESNET18, "npos", 512) == pytest.approx(512 / 6222.47, rel=1e-4)
    assert COSTS.least_step(card, RESNET18, "cross_entropy", 128) == pytest.approx(128 / 7688.72, rel=1e-4)
    assert COSTS.least_step(card, densenet, "goe", 64) == card.step  # fewer images than were timed
    assert COSTS.least_step(card, RESNET50, None, 256) == card.step
    assert COSTS.least_step(plain, densenet, "goe", 384) == plain.step


NORMALISE = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
SMALL = {"variant": "x", "networks": [{"name": "net", "model": "resnet_cifar"}], "recipes": [
    {"name": "ce", "label": "CE", "method": "cross_entropy", "normalise": NORMALISE,
     "training": {"epochs": 2, "batch_size": 64, "lr": 0.1, "schedule": {"name": "cosine"}}}],
    "scores": [{"name": "msp", "score": "msp"}], "experiments": [
        {"paper": "p", "id": "cifar10", "networks": ["net"], "recipes": ["ce"], "scores": ["msp"],
         "ood": {"near": ["cifar100"]}}]}


def job(plan, kind: str, recipe: str | None = None) -> Job:
    run = next(run for run in plan.runs.values() if recipe in (None, run.recipe.name))
    return Job("x", (), (), "", "", kind, True, SimpleNamespace(), run)


def guess(plan, tmp_path, machine: str = "a100", **arguments) -> Estimator:
    return Estimator(plan, COSTS, Measured(tmp_path, "x"), machine, **arguments)


@pytest.mark.parametrize(("changes", "asked", "models", "features", "scores"), [
    ({}, None, "float32", "float32", "float32"),
    ({"tf32": True}, None, "tf32", "tf32", "tf32"),
    ({"features": {"precision": "bfloat16"}}, None, "float32", "bfloat16", "float32"),
    ({}, "bfloat16", "bfloat16", "bfloat16", "float32"),
    ({"tf32": True}, "bfloat16", "bfloat16", "bfloat16", "tf32"),
    ({}, "tf32", "tf32", "tf32", "tf32"),
])
def test_the_precision_is_the_configurations_or_the_one_asked_for(tmp_path, changes, asked, models, features, scores):
    plan = read_plan({**SMALL, **changes}, ROOT, {})
    found = guess(plan, tmp_path, precision=asked)
    assert [found.precision_of(job(plan, kind)) for kind in ("models", "features", "scores")] == [
        models, features, scores]


def test_a_recipes_own_precision_counts(tmp_path):
    raw = json.loads(json.dumps(SMALL))
    raw["recipes"][0]["training"]["precision"] = "bfloat16"
    plan = read_plan(raw, ROOT, {})
    assert guess(plan, tmp_path).precision_of(job(plan, "models")) == "bfloat16"


def test_rates_alone_leave_the_launches_out(tmp_path):
    plan = read_plan(SMALL, ROOT, {})
    found = guess(plan, tmp_path, precision="bfloat16")
    steps = found.training(job(plan, "models").run).steps
    images, start = found.training(job(plan, "models").run).images, COSTS.machine("a100").start
    launched, basis = found.seconds(job(plan, "models"))
    assert (launched, basis) == (pytest.approx(start + steps * 0.02), "sourced")  # 64 images a step: fewer than timed
    bare, _ = found.changed(launched=False).seconds(job(plan, "models"))
    assert bare == pytest.approx(start + images * 3 * RESNET18.gflops / 76900)


def test_without_sharing_each_training_counts_whole(tmp_path):
    plan = setting.read(ROOT / "config/npos.yaml")
    key = next(key for key, start in starts(plan).items() if key.recipe == "npos" and key.id == "cifar10")
    made = {kind: Job("x", (), (), "", "", kind, True, SimpleNamespace(), plan.runs[key])
            for kind in ("starts", "models")}
    once = guess(plan, tmp_path)
    alone = once.changed(shared=False)
    assert alone.trained(made["models"]) == once.training(plan.runs[key])
    assert alone.seconds(made["starts"])[0] == 0 < once.seconds(made["starts"])[0]
    assert once.seconds(made["models"])[0] < alone.seconds(made["models"])[0]


@pytest.mark.parametrize(("change", "said"), [
    ({"kind": "small_resnets"}, "'small_resnets' is not known; did you mean 'small_resnet'"),
    ({"images": 5}, "either gflops, or images and each, expected"),
    ({"source": ""}, "at least 10 characters"),
    ({"precision": "half"}, "precision"),
])
def test_a_rate_that_is_not_in_order_is_refused(tmp_path, change, said):
    raw = yaml.safe_load((ROOT / "config/costs.yaml").read_text())
    raw["machines"]["a100"]["rates"][0] |= change
    (tmp_path / "costs.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(OODError) as refused:
        networks.load(tmp_path / "costs.yaml")
    assert said in str(refused.value)


def test_the_plan_of_a_card_names_its_sources_and_assumptions(capsys):
    command.main(["--quick", "--on", "a100", "--precision", "bfloat16", "--configfile", str(ROOT / "config/goe.yaml")])
    said = capsys.readouterr().out
    assert "A100-hours" in said and "Rates of NVIDIA A100, 80 GB, SXM4:" in said
    assert "sourced: KellerJordan/cifar10-airbench f1c599c" in said and "assumed: not measured" in said
    assert "At the rates alone, were that nothing:" in said


@pytest.mark.parametrize(("words", "line"), [
    (["--on", "a10"], "--on: 'a10' is not known; did you mean 'a100'? Allowed: a100, cpu, gpu, h100, h200."),
    (["--benchmark", "nowhere.json"], "nowhere.json: there is no such benchmark file"),
])
def test_wrong_words_are_told_in_one_line(capsys, words, line):
    with pytest.raises(SystemExit):
        command.main(["--quick", *words])
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_the_lean_tier_has_one_seed_where_the_released_row_cannot_run_and_nothing_else_changed():
    whole, lean = (setting.read(ROOT / "config" / f"{name}.yaml") for name in ("paper", "paper_lean"))
    assert {key for key in whole.runs if key not in lean.runs} == {
        key for key in whole.runs if key.id in LEAN and key.seed}
    assert lean.runs.keys() < whole.runs.keys() and lean.config.variant == whole.config.variant
    assert lean.config.seeds == whole.config.seeds and lean.config.fidelity == whole.config.fidelity


@pytest.mark.parametrize(("seeds", "said"), [
    ({"cifar_10": 1}, "seeds_of: ID set: 'cifar_10' is not known; did you mean 'cifar10'"),
    ({"cifar10": []}, "at least one seed"),
    ({"cifar10": 0}, "at least one seed"),
])
def test_seeds_of_an_id_set_that_are_not_in_order_are_refused(seeds, said):
    with pytest.raises(OODError, match=said):
        read_plan({**SMALL, "seeds_of": seeds}, ROOT, {})


