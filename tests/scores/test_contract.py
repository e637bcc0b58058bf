"""What every score on cached files promises, and the closed forms of each."""

import math
import subprocess
import sys
import tracemalloc
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scores_data import CLASSES, WIDTH, evidence, run
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.scores import (
    arrays,
    ash,
    base,
    bats,
    dice,
    dice_react,
    energy,
    gen,
    himplos,
    knn,
    line,
    msp,
    react,
    residual,
    scale,
    temperature,
    vim,
)
from workflow_scripts.scores.base import Batch, Head, Known

ON_FILES = [n for n in plugins.names("scores") if "network" not in plugins.spec("scores", n).needs]
CASES = [*((name, {}) for name in ON_FILES if name != "knn"), ("knn", {"K": 7}), ("ash", {"variant": "p"}),
         ("ash", {"variant": "b"}), ("react", {"clip": 1.0}), ("himplos", {"cosine": False}), ("line", {"p_a": 90}),
         ("gen", {"M": 2}), ("himplos", {"measure": "msp"}), ("dice", {"mask": 60, "smooth": True}),
         ("bats", {"mask": 60, "smooth": True}), ("bats", {}), ("line", {"smooth": True})]


@pytest.mark.parametrize("name", ON_FILES)
def test_declares_needs_and_documented_options(name):
    module = plugins.load("scores", name)
    assert plugins.spec("scores", name) == module.SPEC
    assert module.SPEC.needs & {"features", "logits", "background", "scores"}
    assert is_dataclass(module.Options) and module.Options.__dataclass_params__.frozen
    for field, _, default, text in plugins.fields("scores", name):
        assert text and default != "required", field
    assert plugins.parse_options("scores", name, {}, name) is not None


def only(known, batch, kinds):
    """Everything outside ``kinds`` withheld."""
    return (Known(**{f.name: getattr(known, f.name) for f in fields(Known) if f.name in kinds}),
            Batch(**{f.name: getattr(batch, f.name) for f in fields(Batch) if f.name in kinds}))


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}{o or ''}" for n, o in CASES])
def test_torch_equals_numpy_and_images_are_independent(name, options):
    """From exactly its needs: one float64 score an image, the same on torch, whatever else is in the batch."""
    torch = pytest.importorskip("torch")
    module = plugins.load("scores", name)
    options = module.Options(**options)
    known, batch = only(*evidence(), base.needs(module, options))
    scores = run(module, options, known, batch)
    assert scores.shape == (60,) and scores.dtype == np.float64 and np.isfinite(scores).all()

    def tensor(part):
        if is_dataclass(part):
            return replace(part, **{f.name: tensor(getattr(part, f.name)) for f in fields(part)})
        return None if part is None else torch.from_numpy(np.ascontiguousarray(part))

    on_torch = run(module, options, tensor(known), tensor(batch))
    assert on_torch.dtype == torch.float64
    np.testing.assert_allclose(on_torch.numpy(), scores, rtol=1e-9, atol=1e-9)

    def some(rows):
        parts = {f.name: getattr(batch, f.name) for f in fields(Batch)}
        return Batch(**{name: part[rows] for name, part in parts.items() if part is not None})

    alone = [run(module, options, known, some(rows)) for rows in (slice(0, 1), slice(1, 60))]
    np.testing.assert_allclose(np.concatenate(alone), scores, rtol=1e-9, atol=1e-9)


def test_numpy_scores_import_no_torch():
    code = ("import sys; from workflow_scripts.core import plugins; "
            "from workflow_scripts.stages import precompute_statistics, score_sets\n"
            f"[plugins.load('scores', n) for n in {ON_FILES}]\n"
            "bad = {'torch', 'scipy', 'pandas', 'sklearn'} & set(sys.modules); assert not bad, bad")
    subprocess.run([sys.executable, "-c", code], check=True)


# Reductions: switched off, each activation-shaping score is the energy.
@pytest.mark.parametrize(("module", "options"), [
    (himplos, {"p": 0, "clip": math.inf, "cosine": False}), (react, {"clip": math.inf}), (react, {"percentile": 100}),
    (ash, {"variant": "p", "p": 0}), (bats, {"lam": 1e9})])
def test_reduces_to_energy(module, options):
    known, batch = evidence()
    if module is react and options.get("percentile"):  # nothing lies above the largest train feature
        batch = replace(batch, features=known.train_features, logits=known.train_logits)
    expected = energy.score(energy.Options(), known, None, batch)
    np.testing.assert_allclose(run(module, module.Options(**options), known, batch), expected, rtol=1e-12)


def test_temperature_one_is_msp():
    known, batch = evidence()
    np.testing.assert_array_equal(run(temperature, temperature.Options(1.0), known, batch),
                                  run(msp, msp.Options(), known, batch))


# Kept units per class, specification of HIMPLoS: width, p -> count.
@pytest.mark.parametrize(("width", "p", "count"), [
    (342, 60, 137), (342, 30, 239), (342, 10, 307), (512, 60, 205), (1280, 30, 896), (2048, 30, 1433), (342, 0, 342)])
def test_himplos_keeps_this_many_units(width, p, count):
    weight = np.random.default_rng(1).normal(size=(3, width)).astype(np.float32)
    assert himplos.head_mask(p, Head(weight, None)).sum(1).tolist() == [count] * 3


def test_himplos_of_a_dead_feature_is_log_k():
    known, _ = evidence()
    assert run(himplos, himplos.Options(), known, Batch(np.zeros((1, WIDTH)))) == pytest.approx(math.log(CLASSES))


def test_himplos_scales_the_bias_too():
    """One class, one unit, W = 1, b = 3, h = 2, mu at an angle: score = cos * (2 + 3)."""
    known = Known(Head(np.array([[1.0, 0.0]]), np.array([3.0])), None,
                  base.Statistics(np.array([[3.0, 4.0]]), np.array([1]), None))
    scores = run(himplos, himplos.Options(p=0, clip=math.inf), known, Batch(np.array([[2.0, 0.0]])))
    assert scores == pytest.approx([0.6 * 5])


def test_confident_images_stay_apart():
    """softmax of all three is 1.0 in float64."""
    logits = np.array([[40.0, 0, 0], [60.0, 0, 0], [700.0, 0, 0]])
    assert len(set(np.exp(logits - arrays.logsumexp(logits)[:, None]).max(1))) == 1
    for module in (msp, gen):
        assert (np.diff(run(module, module.Options(), Known(), Batch(logits=logits))) > 0).all(), module.__name__


def test_line_contribution_is_the_mean_of_feature_times_gradient():
    """Naive: for each class the mean over its images of h * dz_c/dh, masks and energy image by image."""
    known, batch = evidence()
    options = line.Options(p_a=20, p_w=60, clip=1.5)
    weight, bias = known.head.weight, known.head.bias
    expected = []
    for h in np.minimum(batch.features, 1.5):
        c = np.argmax(weight @ h + bias)
        shap = np.mean([x * weight[c] for x in known.train_features[known.train_labels == c]], axis=0)
        keep = np.abs(shap) * weight > np.percentile(np.abs(shap) * weight, 60)
        expected.append(np.logaddexp.reduce((weight * keep) @ (h * (shap > np.percentile(shap, 20))) + bias))
    np.testing.assert_allclose(run(line, options, known, batch), expected, rtol=1e-12)


def test_bats_clips_to_the_typical_range():
    known, batch = evidence()
    low, high = (known.batchnorm.bias + sign * 0.8 * known.batchnorm.weight for sign in (-1, 1))
    clipped = np.clip(batch.features, low, high) @ known.head.weight.T + known.head.bias
    np.testing.assert_allclose(run(bats, bats.Options(0.8), known, batch), np.logaddexp.reduce(clipped, axis=1),
                               rtol=1e-12)


def test_dice_react_is_dice_on_clipped_features():
    known, batch = evidence()
    level = np.percentile(known.train_features, 70)
    np.testing.assert_allclose(
        run(dice_react, dice_react.Options(p=60, percentile=70), known, batch),
        run(dice, dice.Options(p=60), known, replace(batch, features=np.minimum(batch.features, level))), rtol=1e-12)


def test_vim_is_energy_and_residual():
    """By singular value decomposition: the part outside the first right singular vectors; mean residual matched."""
    known, batch = evidence()
    origin = -np.linalg.pinv(known.head.weight) @ known.head.bias
    rest = np.linalg.svd(known.train_features - origin)[2][10:]
    expected, train = (np.linalg.norm((h - origin) @ rest.T, axis=1) for h in (batch.features, known.train_features))
    np.testing.assert_allclose(-run(residual, residual.Options(10), known, batch), expected, rtol=1e-9)
    alpha = known.train_logits.max(1).mean() / train.mean()
    np.testing.assert_allclose(run(vim, vim.Options(10), known, batch),
                               np.logaddexp.reduce(batch.logits, axis=1) - alpha * expected, rtol=1e-9)


# ViM's released rule; 512 -> half because 512 directions would leave nothing.
@pytest.mark.parametrize(("width", "dim"), [
    (2048, 1000), (4096, 1000), (2047, 512), (768, 512), (512, 256), (342, 171)])
def test_vim_dimension_rule(width, dim):
    assert vim.dimension(None, width, "vim.dim") == dim


def test_ash_of_a_dead_feature_is_the_energy_of_the_bias():
    known, _ = evidence()
    for module, options in ((ash, {"variant": "s"}), (ash, {"variant": "b"}), (scale, {})):
        scores = run(module, module.Options(**options), known, Batch(np.zeros((1, WIDTH))))
        assert scores == pytest.approx(np.logaddexp.reduce(known.head.bias))


# Exact search
def naive_knn(bank, queries, k):
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, bank)]
    return -np.sort(np.linalg.norm(unit[0][:, None] - unit[1][None], axis=2), axis=1)[:, k - 1]


@pytest.mark.parametrize("k", [1, 3, 64, 900])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_knn_equals_the_naive_search(k, dtype, monkeypatch):
    """Several blocks of bank and queries, a zero row on both sides, a bank with copies of queries."""
    monkeypatch.setattr(knn, "QUERIES", 17)
    monkeypatch.setattr(knn, "BANK", 256)
    rng = np.random.default_rng(0)
    bank, queries = rng.random((900, 6)).astype(dtype), rng.random((50, 6)).astype(dtype)
    bank[5], queries[7], bank[100:120] = 0, 0, queries[3]
    scores = run(knn, knn.Options(K=k), Known(train_features=bank), Batch(queries))
    np.testing.assert_allclose(scores, naive_knn(bank.astype(float), queries.astype(float), k),
                               atol=1e-6 if dtype == np.float32 else 1e-12)


def test_knn_memory_does_not_grow_with_queries():
    bank = knn.fit(knn.Options(K=5), Known(train_features=np.random.default_rng(0).random((3000, 8), dtype=np.float32)))
    queries = np.random.default_rng(1).random((8 * 1024, 8), dtype=np.float32)

    def peak(n):
        tracemalloc.start()
        knn.score(knn.Options(K=5), Known(), bank, Batch(queries[:n]))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(8 * 1024) < peak(2 * 1024) + 6 * 1024 * 8 * 3  # the scores themselves


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 500), st.integers(1, 4), st.integers(0, 10**6))
def test_largest_finds_the_k_largest_under_ties(k, columns, rows, seed):
    x = np.random.default_rng(seed).integers(0, 50, (rows, max(columns, k))).astype(np.float32)
    values, indices = arrays.largest(x, k)
    np.testing.assert_array_equal(np.sort(values), np.sort(x)[:, -k:])
    np.testing.assert_array_equal(np.take_along_axis(x, indices, 1), values)
    assert all(len(set(row)) == k for row in indices)


@pytest.mark.parametrize("columns", [5000, 50_000])
@pytest.mark.parametrize("levels", [2, 10**9])
def test_largest_of_long_rows(columns, levels):
    """The bounded search, and its fallback when nearly all values are tied."""
    x = np.random.default_rng(0).integers(0, levels, (8, columns)).astype(np.float32)
    np.testing.assert_array_equal(np.sort(arrays.largest(x, 50)[0]), np.sort(x)[:, -50:])


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 100), st.integers(1, 60), st.integers(0, 10**6))
def test_percentile_is_numpys(p, size, seed):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(seed).normal(size=(3, size)).round(1)
    expected = np.percentile(x, p, axis=-1)
    np.testing.assert_allclose(arrays.percentile(x, p), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(arrays.percentile(torch.from_numpy(x), p).numpy(), expected, rtol=1e-12, atol=1e-15)


def test_keep_largest_keeps_exactly_k_and_the_first_of_equals():
    x = np.array([[3.0, 1, 3, 3, 0], [0, 0, 0, 0, 0], [5, 4, 3, 2, 1]])
    assert arrays.keep_largest(x, 2).astype(int).tolist() == [[1, 0, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]


# Refused, with the key's name
@pytest.mark.parametrize(("module", "options", "message"), [
    (knn, {"K": 201}, r"knn\.K: .* only 200 ID train features"),
    (vim, {"dim": WIDTH}, r"vim\.dim: 24 .* less than 24"),
    (residual, {"dim": 99}, r"residual\.dim: 99")])
def test_refused_while_fitting(module, options, message):
    with pytest.raises(OODError, match=message):
        run(module, module.Options(**options), *evidence())


@pytest.mark.parametrize(("name", "options"), [
    ("mahalanobis", {}), ("mahalanobis", {"unit": True}), ("relative_mahalanobis", {"unit": True}), ("gmm", {})])
def test_class_without_train_features_is_refused(name, options):
    module = plugins.load("scores", name)
    known, batch = evidence()
    statistics = replace(known.statistics, counts=np.array([40, 40, 0, 40, 40]))
    with pytest.raises(OODError, match="class 2 has no train features"):
        run(module, module.Options(**options), replace(known, statistics=statistics), batch)


@pytest.mark.parametrize(("name", "options"), [
    ("dice", {"p": 101}), ("himplos", {"p": -1}), ("himplos", {"clip": 0}), ("ash", {"p": 100}), ("scale", {"p": -0.1}),
    ("react", {"percentile": 100.5}), ("line", {"p_w": 101}), ("knn", {"K": 0}), ("gen", {"gamma": 1}),
    ("gen", {"M": 0}),
    ("bats", {"lam": 0}), ("vim", {"dim": 0}), ("temperature", {"temperature": 0}), ("ash", {"variant": "x"}),
    ("himplos", {"p": math.nan})])
def test_options_out_of_range_are_refused_by_name(name, options):
    with pytest.raises(OODError, match=rf"scores\.{name}\.{next(iter(options))}"):
        plugins.parse_options("scores", name, options, f"scores.{name}")
