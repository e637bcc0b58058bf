"""Scores against numbers of the released code (tests/golden/scores.npz).

``himplos_*``: sunzh18/HIMPLoS at 7a01249, ``dfb_*``: mala-lab/DFB at 6c7fb42, ``npos_*``: deeplearning-wisc/npos at
583c06d, all executed in float32 (hence 1e-5) except ``dfb_{MSP,ODIN,Energy}`` (float64, 1e-8).
"""

import math
from pathlib import Path

import numpy as np
import pytest

from workflow_scripts.scores import (
    dice,
    dice_react,
    energy,
    gradnorm,
    himplos,
    knn,
    line,
    max_logit,
    msp,
    react,
    temperature,
)
from workflow_scripts.scores.base import Batch, Head, Known, Statistics
from workflow_scripts.stages.precompute_statistics import class_sums

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "scores.npz")
HEAD = Head(GOLDEN["himplos_W"], GOLDEN["himplos_b"])
KNOWN = Known(head=HEAD, statistics=Statistics(GOLDEN["himplos_class_mean"].astype(float), None,
                                               GOLDEN["himplos_feature_mean"].astype(float)))
BATCH = Batch(features=GOLDEN["himplos_h"], logits=GOLDEN["himplos_logits"])
INF = math.inf

RELEASED = [
    ("himplos_energy_T1", energy, {}),
    ("himplos_energy_T2", energy, {"temperature": 2}),
    ("himplos_react_1p0", react, {"clip": 1.0}),
    *((f"himplos_dice_p{p}", dice, {"p": p}) for p in (65, 70, 90)),
    *((f"himplos_dice_react_p{p}_thr1p0", dice_react, {"p": p, "clip": 1.0}) for p in (65, 70, 90)),
    *((f"himplos_p{p}_thr{text}{tail}", himplos, {"p": p, "clip": clip, **more})
      for p, clip, text in ((60, 1.6, "1p6"), (30, 0.8, "0p8"))
      for tail, more in (("", {}), ("_T2", {"temperature": 2}), ("_nocos", {"cosine": False}))),
    ("himplos_clip_cos_nomask_thr1p6", himplos, {"p": 0, "clip": 1.6}),
    ("himplos_clip_cos_nomask_thr0p8", himplos, {"p": 0, "clip": 0.8}),
    *((f"himplos_maskonly_p{p}", himplos, {"p": p, "clip": INF, "cosine": False}) for p in (60, 30)),
    *((f"himplos_mask_cos_noclip_p{p}", himplos, {"p": p, "clip": INF}) for p in (60, 30)),
    ("himplos_smoothing_only", himplos, {"p": 0, "clip": INF}),
    ("himplos_none_p0_nocos_noclip", himplos, {"p": 0, "clip": INF, "cosine": False}),
]


@pytest.mark.parametrize(("name", "module", "options"), RELEASED, ids=[row[0] for row in RELEASED])
def test_released_himplos(name, module, options):
    options = module.Options(**options)
    state = module.fit(options, KNOWN) if hasattr(module, "fit") else None
    np.testing.assert_allclose(module.score(options, KNOWN, state, BATCH), GOLDEN[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("p_w", "p_a"), [(10, 10), (12, 15), (90, 10)])
def test_released_line(p_w, p_a):
    """The release's contributions are given; p_w = 10 falls exactly on an order statistic."""
    options, name = line.Options(p_w=p_w, p_a=p_a, clip=1.0), f"himplos_line_pw{p_w}_pa{p_a}"
    state = line.masks(options, HEAD, GOLDEN["himplos_shap"].T.astype(float))
    np.testing.assert_array_equal(state.units, GOLDEN[f"{name}_mask_f"])
    for c in range(7):
        np.testing.assert_array_equal(line.class_head(state, HEAD, c).weight != 0, GOLDEN[f"{name}_keep_w"][c])
    np.testing.assert_allclose(line.score(options, KNOWN, state, BATCH), GOLDEN[f"{name}_thr1p0"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("p", [65, 70, 90])
def test_released_dice_mask(p):
    """p = 70 falls exactly on an order statistic, which is dropped."""
    weight = dice.sparse_head(p, HEAD, KNOWN.statistics.mean).weight
    np.testing.assert_array_equal(weight != 0, GOLDEN[f"himplos_dice_p{p}_keep"])


@pytest.mark.parametrize("p", [30, 60])
def test_released_himplos_mask(p):
    np.testing.assert_array_equal(himplos.head_mask(p, HEAD), GOLDEN[f"himplos_mask_p{p}"])


def test_released_prototypes():
    """Mean over space, then over the class."""
    sums, counts = class_sums(GOLDEN["himplos_proto_maps"].mean((2, 3)), GOLDEN["himplos_proto_labels"].astype(int), 7)
    np.testing.assert_allclose(sums / counts[:, None], GOLDEN["himplos_proto_class_mean"], rtol=0, atol=1e-5)


def test_msp_is_the_logarithm_of_the_released_one():
    np.testing.assert_allclose(np.exp(msp.score(msp.Options(), KNOWN, None, BATCH)), GOLDEN["himplos_msp"], rtol=0,
                               atol=1e-5)


@pytest.mark.parametrize(("name", "module", "options", "to_released"), [
    ("MSP", msp, {}, np.exp), ("ODIN", temperature, {"temperature": 2}, np.exp), ("Energy", energy, {}, lambda s: s)])
def test_released_dfb(name, module, options, to_released):
    """DFB's ODIN is a tempered MSP with T = 2."""
    features = GOLDEN["dfb_features_u8"] * float(GOLDEN["dfb_scale"])
    batch = Batch(logits=features @ GOLDEN["dfb_weight"].T.astype(float) + GOLDEN["dfb_bias"])
    scores = to_released(module.score(module.Options(**options), Known(), None, batch))
    np.testing.assert_allclose(scores, GOLDEN[f"dfb_{name}"], rtol=0, atol=1e-8)


def test_released_gradnorm_is_k_times_ours():
    """DFB sums the loss over the 9 classes, the paper's loss is their mean."""
    features = GOLDEN["dfb_features_u8"][:6] * float(GOLDEN["dfb_scale"])
    batch = Batch(features=features, logits=features @ GOLDEN["dfb_weight"].T.astype(float) + GOLDEN["dfb_bias"])
    scores = gradnorm.score(gradnorm.Options(), Known(), None, batch)
    np.testing.assert_allclose(9 * scores, GOLDEN["dfb_gradnorm"], rtol=1e-5)


@pytest.mark.parametrize("part", ["id", "ood"])
def test_released_npos_knn(part):
    """NPOS reports minus the squared distance, ours is minus the distance."""
    options = knn.Options(K=10)
    bank = knn.fit(options, Known(train_features=GOLDEN["npos_knn_train_feat"]))
    scores = knn.score(options, Known(), bank, Batch(features=GOLDEN[f"npos_knn_{part}_feat"]))
    np.testing.assert_allclose(-(scores**2), GOLDEN[f"npos_knn_score_{part}_K10"], rtol=0, atol=2e-6)


def test_max_logit_is_the_logit_of_the_prediction():
    np.testing.assert_array_equal(max_logit.score(max_logit.Options(), Known(), None, BATCH),
                                  GOLDEN["himplos_logits"][np.arange(64), GOLDEN["himplos_pred"]].astype(float))
