"""NPOS on CLIP: the network equals open_clip's, the cached frozen blocks, its training, MCM.

Golden vectors: npos @ 583c06d, `LogitNormLoss`, `logits_compute`.
"""

from __future__ import annotations

import json

import h5py
import numpy as np
import open_clip
import pytest
import torch

from tests import typed
from tests.network_data import write_store
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import npos_clip
from workflow_scripts.models import clip_vit
from workflow_scripts.networks import checkpoint
from workflow_scripts.scores import mcm, msp
from workflow_scripts.scores.arrays import affine
from workflow_scripts.scores.base import Batch, Head, Known
from workflow_scripts.stages import cache_frozen_blocks
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import import_weights as import_checkpoint
from workflow_scripts.stages import train_network as train
from workflow_scripts.training.loop import Images, Training
from workflow_scripts.training.tokens import Tokens

SMALL = {"image": 32, "patch": 8, "width": 64, "layers": 4, "trained": 2, "embed": 16, "text_width": 64,
         "text_layers": 2}
SECTION = {"name": "small", "model": "clip_vit", "options": SMALL}
HOW = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
RECIPE = {
    "method": "npos_clip", "normalise": HOW, "augment": [], "views": 1, "frozen_blocks": True, "validation": None,
    "keep": "last", "outliers": None,
    "options": {"start": 1, "queue": 10, "K": 3, "select": 5, "pick": 2, "sample_from": 8, "keep": 2, "hidden": 8},
    "training": {"epochs": 3, "batch_size": 12, "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4,
                 "drop_last": True, "schedule": {"name": "constant", "milestones": [], "gamma": 0.1, "floor": 0.0}},
}


@pytest.fixture(scope="module")
def release(golden):
    return np.load(golden / "npos.npz")


@pytest.fixture(scope="module")
def whole():
    """A CLIP of random weights, of the small size."""
    torch.manual_seed(0)
    options = clip_vit.Options(**SMALL)
    text = open_clip.CLIPTextCfg(width=64, heads=1, layers=2)
    return open_clip.CLIP(16, clip_vit.vision(options), text, quick_gelu=True).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, whole):
    """Its file, taken in; stores of two classes told apart by their colour; the frozen blocks' output."""
    path = tmp_path_factory.mktemp("clip")
    torch.save(whole.state_dict(), path / "clip.pt")
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    pixels = rng.integers(0, 90, (48, 32, 32, 3), dtype=np.uint8)
    for c in range(3):
        pixels[labels == c, :, :, c] += 140
    store = write_store(path / "rows.train.h5", labels, images=pixels)
    import_checkpoint.main(["--config", json.dumps({"network": SECTION}), "--file", str(path / "clip.pt"),
                            "--classes-from", str(store), "--device", "cpu", "--out", str(path / "seed0.pt")])
    config = {"network": SECTION, "normalise": HOW, "batch_size": 20}
    cache_frozen_blocks.main(["--config", json.dumps(config), "--checkpoint", str(path / "seed0.pt"),
                              "--store", str(store), "--device", "cpu", "--out", str(path / "tokens.h5")])
    return path


def loaded(path) -> clip_vit.ClipViT:
    content = checkpoint.read(path)
    network = clip_vit.build(clip_vit.Options(**SMALL), len(content["about"]["classes"]))
    checkpoint.load_weights(network, content["state_dict"], path, "small")
    return network.eval()


def test_vit_b16_equals_open_clip_through_the_frozen_blocks_output_too():
    """Full size, random weights, four images: within 1e-4 of encode_image, in float32 and from float16 tokens."""
    torch.manual_seed(0)
    reference = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None).eval()
    network = clip_vit.build(clip_vit.Options(), 7).eval()
    visual = {key: value for key, value in reference.state_dict().items() if key.startswith("visual.")}
    missing, extra = network.load_state_dict(visual, strict=False)
    assert missing == ["fc.weight", "fc.bias"] and not extra
    x = torch.randn(4, 3, 224, 224)
    with torch.inference_mode():
        expected = reference.encode_image(x)
        tokens = network.frozen_blocks(x)
        assert tokens.shape == (4, 197, 768) == (4, *network.token_shape)
        for found in (network.features(x), network.features(tokens)):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        rounded = network.features(tokens.half().float())
    cosine = torch.nn.functional.cosine_similarity(rounded, expected)
    assert (1 - cosine).max() < 1e-4  # float16 on disk
    names = {name for name, p in network.named_parameters() if any(p is q for q in network.tail())}
    assert {name.split(".")[3] for name in names if "resblocks" in name} == {"10", "11"}
    assert {"visual.proj", "visual.ln_post.weight", "visual.ln_post.bias"} <= names
    assert 197 * 768 * 2 == 302_592  # bytes of an image


def test_prompts_and_text_head(whole):
    prompts = clip_vit.templates()
    assert len(prompts) == len(set(prompts)) == 18 and "a black and white photo of the {}." in prompts
    names = ["tench", "a much longer name of some rare thing", "goldfish"]
    head = clip_vit.text_head(whole, names)
    tokenise = open_clip.get_tokenizer("ViT-B-16")
    for row, name in zip(head, names, strict=True):
        with torch.inference_mode():
            one = whole.encode_text(tokenise([p.format(name) for p in prompts]), normalize=True).mean(0)
        torch.testing.assert_close(row, one / one.norm(), rtol=0, atol=1e-5)
    options = clip_vit.Options(imagenet=(0, 2))
    assert clip_vit.class_names(options, ["n01440764", "n01484850"]) == ["tench", "great white shark"]
    with pytest.raises(OODError, match="has 2 numbers, the ID set 3 classes"):
        clip_vit.class_names(options, names)
    assert len(clip_vit.class_names(clip_vit.Options(), [str(i) for i in range(1000)])) == 1000


def test_words_that_are_no_class_come_beside_the_head(whole):
    options = clip_vit.Options(**SMALL, negatives=("fog", "rust", "tax"))
    state = clip_vit.take_in(options, whole.state_dict(), ["a", "b"], "clip.pt")
    network = clip_vit.build(options, 2)
    network.load_state_dict(state)
    torch.testing.assert_close(network.negatives, clip_vit.text_head(whole, ["fog", "rust", "tax"]))
    assert "negatives" not in clip_vit.build(clip_vit.Options(**SMALL), 2).state_dict()


def test_a_checkpoint_of_another_clip_is_named(whole, tmp_path, capsys):
    torch.save(whole.state_dict(), tmp_path / "clip.pt")
    other = SECTION | {"options": SMALL | {"layers": 3}}
    with pytest.raises(SystemExit):
        import_checkpoint.main(["--config", json.dumps({"network": other}), "--file", str(tmp_path / "clip.pt"),
                                "--classes", "3", "--device", "cpu", "--out", str(tmp_path / "x.pt")])
    error = capsys.readouterr().err
    assert "clip.pt: the file is of another CLIP than the options say: 12 tensors differ, first 'visual." in error


def test_the_cached_output_is_that_of_the_images(folder, whole, capsys):
    network = loaded(folder / "seed0.pt")
    with h5py.File(folder / "rows.train.h5") as file:
        x = (torch.from_numpy(file["images"][:]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    tokens = Tokens(folder / "tokens.h5", 48, network.token_shape, torch.device("cpu"))
    index = torch.tensor([3, 0, 47])
    with torch.inference_mode():
        torch.testing.assert_close(network.features(tokens[index]), whole.encode_image(x[index]), rtol=0, atol=2e-3)
        torch.testing.assert_close(network.features(x), whole.encode_image(x), rtol=0, atol=1e-5)
    with pytest.raises(OODError, match=r"tokens are \(48, 17, 64\), expected \(47, 17, 64\)"):
        Tokens(folder / "tokens.h5", 47, network.token_shape, torch.device("cpu"))
    with pytest.raises(OODError, match="no cached output of frozen blocks"):
        Tokens(folder / "rows.train.h5", 48, network.token_shape, torch.device("cpu"))
    config = {"network": SECTION, "normalise": HOW, "batch_size": 20}
    cache_frozen_blocks.main(["--config", json.dumps(config), "--checkpoint", str(folder / "seed0.pt"), "--store",
                      str(folder / "rows.train.h5"), "--device", "cpu", "--out", str(folder / "again.h5")])
    assert "48 images of 17 x 64 float16 take 0.00 GB" in capsys.readouterr().out
    assert (folder / "again.h5").stat().st_size > 48 * 17 * 64 * 2


def test_the_train_stage_trains_the_tail_from_the_frozen_blocks_output(folder):
    config = {"network": SECTION, "recipe": RECIPE, "released": [], "steps": None}
    train.main(["--config", json.dumps(config), "--data", str(folder / "rows.train.h5"), "--parent",
                str(folder / "seed0.pt"), "--tokens", str(folder / "tokens.h5"), "--seed", "0", "--device", "cpu",
                "--threads", "1", "--record", str(folder / "r.h5"), "--out", str(folder / "trained.pt")])
    before, after = (checkpoint.read(folder / name) for name in ("seed0.pt", "trained.pt"))
    changed = {k for k, v in after["state_dict"].items() if not torch.equal(v, before["state_dict"][k])}
    assert changed and not any(k.startswith("fc.") for k in changed)
    assert {k.split(".")[3] for k in changed if "resblocks" in k} == {"2", "3"}
    rest = {k for k in changed if "resblocks" not in k}
    assert rest == {"visual.ln_post.weight", "visual.ln_post.bias", "visual.proj"}
    history = after["about"]["history"]
    assert len(history) == 3 and history[-1]["accuracy"] > history[0]["accuracy"] - 0.05


def test_a_training_that_was_killed_ends_with_the_same_bits(folder, tmp_path, monkeypatch, capsys):
    """Through the stage, progress written after each step, killed while outliers are synthesised."""
    config = {"network": SECTION, "recipe": RECIPE, "released": [], "steps": None}

    def stage(out):
        train.main(["--config", json.dumps(config), "--data", str(folder / "rows.train.h5"), "--parent",
                    str(folder / "seed0.pt"), "--tokens", str(folder / "tokens.h5"), "--seed", "0", "--device", "cpu",
                    "--threads", "1", "--save-every", "0", "--out", str(out)])
        return out.read_bytes()

    expected = stage(tmp_path / "whole.pt")
    step = Training._step

    def killed(self, batch):
        if self.done == 6:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "cut.pt")
    monkeypatch.setattr(Training, "_step", step)
    assert stage(tmp_path / "cut.pt") == expected
    assert "going on after epoch 1, step 2" in capsys.readouterr().out
    assert not (tmp_path / "cut.pt.resume").exists()


def trained(options=None, released=(), **training):
    torch.manual_seed(0)
    network = clip_vit.build(clip_vit.Options(**SMALL), 3)
    torch.nn.init.normal_(network.fc.weight)
    method = npos_clip.build(npos_clip.Options(**(RECIPE["options"] | (options or {}))), released)
    labels = torch.arange(36) % 3
    pixels = torch.randint(0, 255, (36, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recipe = RECIPE | {"frozen_blocks": False, "training": RECIPE["training"] | training}
    run = Training(network, method, Images(pixels, labels), typed.recipe(recipe), 0, None, released)
    return run, run.run(report=lambda line: None)


def test_outliers_take_part_and_the_second_rate_is_phi_s():
    (run, light), (_, heavy) = trained({"weight": 0.001}), trained({"weight": 3.0})
    assert light[0] == heavy[0] and heavy[1]["loss"] > light[1]["loss"]
    assert run.bases == pytest.approx([0.1, 0.01])


def test_the_released_schedule_multiplies_by_ten():
    schedule = {"name": "multistep", "milestones": [1], "gamma": 0.1, "floor": 0.0}
    rates = [trained(released=bugs, schedule=schedule)[1][1]["lr"] for bugs in ((), ("npos.B14",))]
    assert rates == pytest.approx([0.01, 1.0])


def test_what_it_refuses():
    with pytest.raises(OODError, match="has none, take method npos"):
        method = npos_clip.build(npos_clip.Options(), ())
        method.check(typed.recipe(RECIPE | {"training": RECIPE["training"] | {"epochs": 20}}))
        method.setup(torch.nn.Linear(1, 1), None)
    with pytest.raises(OODError, match="leave out augment, views and validation, or frozen_blocks"):
        npos_clip.build(npos_clip.Options(start=0), ()).check(
            typed.recipe(RECIPE | {"augment": [{"horizontal_flip": 0.5}]}))


def test_logit_norm_equals_the_release(release):
    for T, name in ((8.0, "8p0"), (0.04, "0p04")):
        logits = torch.from_numpy(release["ln_logits"]).requires_grad_()
        loss = npos_clip.logit_norm(logits, torch.from_numpy(release["ln_labels"]), T)
        loss.backward()
        assert loss.item() == pytest.approx(float(release[f"ln_loss_T{name}"]), abs=1e-5)
        np.testing.assert_allclose(logits.grad.numpy(), release[f"ln_grad_T{name}"], rtol=0, atol=1e-5)


def test_mcm_and_its_defect_equal_the_release(release):
    known = Known(head=Head(release["clip_text"].T, np.zeros(9)))
    embeddings = release["clip_emb"]
    found = np.exp(mcm.score(mcm.Options(), known, None, Batch(features=embeddings)))
    np.testing.assert_allclose(found, release["clip_mcm_T1_rownorm"], rtol=0, atol=1e-6)
    alone = [mcm.score(mcm.Options(), known, None, Batch(features=row[None])) for row in embeddings]
    np.testing.assert_allclose(np.exp(np.concatenate(alone)), found)  # no matter which batch
    for size in (10, 4):
        logits = release[f"clip_logits_released_batch{size}"].astype(np.float64)
        expected = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
        scores = mcm.score(mcm.Options(released_batch=size), known, None, Batch(features=embeddings))
        np.testing.assert_allclose(np.exp(scores[:size]), expected, rtol=0, atol=1e-6)


def test_logits_of_the_features_stage_are_cosines(folder):
    config = {"network": SECTION, "normalise": HOW, "batch_size": 20, "sets": ["rows.train"]}
    features.main(["--config", json.dumps(config), "--checkpoint", str(folder / "seed0.pt"), "--stores",
                   str(folder / "rows.train.h5"), "--out", str(folder / "f.h5"), "--head", str(folder / "h.h5"),
                   "--device", "cpu"])
    with h5py.File(folder / "f.h5") as file, h5py.File(folder / "h.h5") as head:
        logits, h = (file[f"rows.train/{key}"][:] for key in ("logits", "features"))
        known = Known(head=Head(head["weight"][:], head["bias"][:]))
    assert np.abs(logits).max() <= 1.00001 and np.linalg.norm(h, axis=1).max() > 1.01
    by_logits = msp.score(msp.Options(), Known(), None, Batch(logits=logits))
    np.testing.assert_allclose(mcm.score(mcm.Options(), known, None, Batch(features=h)), by_logits, atol=1e-6)


def test_a_linear_head_starts_as_the_texts_and_is_fine_tuned_with_the_tail(folder, tmp_path):
    """The CLIP table's baselines: scores that read features and head, as ViM does, compute the network's own logits."""
    linear = SECTION | {"options": SMALL | {"head": "linear"}}
    parent = tmp_path / "parent.pt"
    import_checkpoint.main(["--config", json.dumps({"network": linear}), "--file", str(folder / "clip.pt"),
                            "--classes-from", str(folder / "rows.train.h5"), "--device", "cpu", "--out", str(parent)])
    before = checkpoint.read(parent)["state_dict"]
    assert torch.equal(before["fc.weight"], loaded(folder / "seed0.pt").fc.weight)
    prefixes = ["visual.transformer.resblocks.2.", "visual.transformer.resblocks.3.", "visual.ln_post.", "visual.proj",
                "fc."]
    recipe = {"method": "cross_entropy", "normalise": HOW, "options": {"train": prefixes},
              "training": RECIPE["training"] | {"epochs": 2, "lr": 0.02}}
    section = {"network": linear, "recipe": recipe, "released": [], "steps": None}
    out = tmp_path / "seed0.pt"
    train.main(["--config", json.dumps(section), "--data", str(folder / "rows.train.h5"), "--parent", str(parent),
                "--seed", "0", "--device", "cpu", "--out", str(out)])
    after = checkpoint.read(out)
    changed = {name for name, tensor in after["state_dict"].items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith(tuple(prefixes)) for name in changed)
    assert {name.split(".")[0] for name in changed} == {"visual", "fc"}
    assert after["about"]["history"][-1]["accuracy"] > after["about"]["history"][0]["accuracy"]
    network = clip_vit.build(clip_vit.Options(**SMALL, head="linear"), 3).eval()
    checkpoint.load_weights(network, after["state_dict"], out, "small")
    x = torch.rand(5, 3, 32, 32)
    with torch.inference_mode():
        h, z = network.features(x), network(x)
    ours = affine(h, Head(network.head.weight.detach(), network.head.bias.detach()))
    torch.testing.assert_close(ours.float(), z, rtol=0, atol=1e-5)
