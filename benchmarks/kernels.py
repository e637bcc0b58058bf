"""Kernels against what a researcher would use instead, on the same arrays, both sides in every turn.

    uv run --with faiss-cpu python -m benchmarks.kernels [--repeats 5] [--threads 2] [--share 1]

KNN: 1,000 queries against a bank of 50,000 x 512, K = 50, beside faiss-cpu's flat index (unit rows, one batch);
target: 0.75 of its speed. Mahalanobis: C = 100, D = 512, batches of 200, beside the diagonal of x P x^T class by class,
as OpenOOD computes it; target: 50 times. Metrics: AUROC, both AUPR and FPR95 of a million scores beside scikit-learn's
four calls; target: no slower (1), wanted: 3. The values of both sides are compared first. `--share 100` divides the
sizes. NPOS's synthesis, pseudo-masks, LMDB and the loader have benchmarks of their own: npos, dfb, data.
"""

from __future__ import annotations

import argparse
import os

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import common
from benchmarks.common import Figure, Report
from workflow_scripts.metrics.ood import ood_metrics
from workflow_scripts.scores import knn, mahalanobis
from workflow_scripts.scores.base import Batch, Known, Statistics


def neighbours(report: Report, repeats: int, share: int, threads: int) -> None:
    try:
        import faiss
    except ImportError as error:
        print(f"  KNN is left out: {error}; try `uv run --with faiss-cpu python -m benchmarks.kernels`")
        return
    faiss.omp_set_num_threads(threads)
    rng = np.random.default_rng(0)
    bank = np.abs(rng.standard_normal((50_000 // share, 512), dtype=np.float32))
    queries = np.abs(rng.standard_normal((1000 // min(share, 10), 512), dtype=np.float32))
    state = knn.fit(knn.Options(K=50), Known(train_features=bank))
    index = faiss.IndexFlatL2(512)
    index.add(np.ascontiguousarray(knn.unit(bank)))

    def ours() -> np.ndarray:
        return knn.score(knn.Options(K=50), Known(), state, Batch(features=queries))

    def theirs() -> np.ndarray:
        return -np.sqrt(np.maximum(index.search(knn.unit(queries), 50)[0][:, -1], 0))

    np.testing.assert_allclose(ours(), theirs(), atol=1e-4)
    times = common.turns({"ours": ours, "faiss": theirs}, repeats)
    report.add(Figure("KNN 50,000 x 512, K = 50: speed over faiss-cpu's", common.ratio(times, "faiss", "ours"), "",
                      0.75, n=repeats, more={"queries/s": len(queries) / common.median(times, "ours")}))


def by_class(x: np.ndarray, means: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Minus the squared distance to the nearest mean, from (B, B) products whose diagonal is kept."""
    scores = np.stack([-np.diag((x - mean) @ precision @ (x - mean).T) for mean in means], axis=1)
    return scores.max(axis=1)


def distances(report: Report, repeats: int, share: int) -> None:
    rng = np.random.default_rng(0)
    classes, width, count = 100, 512 // min(share, 8), 20_000 // min(share, 10)
    centres = rng.standard_normal((classes, width))
    labels = np.arange(count) % classes
    train = (centres[labels] + rng.standard_normal((count, width))).astype(np.float32)
    x = (centres[np.arange(200) % classes] + rng.standard_normal((200, width))).astype(np.float32)
    means = np.stack([train[labels == c].mean(0, dtype=np.float64) for c in range(classes)])
    known = Known(train_features=train, train_labels=labels,
                  statistics=Statistics(means, np.bincount(labels), train.mean(0, dtype=np.float64)))
    state = mahalanobis.fit(mahalanobis.Options(), known)
    deviation = train - means[labels]
    precision = np.linalg.inv(deviation.T @ deviation / count)
    in_float32 = x, means.astype(np.float32), precision.astype(np.float32)

    def ours() -> np.ndarray:
        return mahalanobis.score(mahalanobis.Options(), Known(), state, Batch(features=x))

    np.testing.assert_allclose(ours(), by_class(x.astype(np.float64), means, precision), rtol=1e-6)
    times = common.turns({"ours, float64": ours,
                          "diagonal, float64": lambda: by_class(x.astype(float), means, precision),
                          "diagonal, float32": lambda: by_class(*in_float32)}, repeats)
    for side in ("diagonal, float64", "diagonal, float32"):
        report.add(Figure(f"Mahalanobis C = 100, D = {width}, batch 200: times the {side}",
                          common.ratio(times, side, "ours, float64"), "", 50, n=repeats,
                          more={"images/s": 200 / common.median(times, "ours, float64")}))


def four_metrics(report: Report, repeats: int, share: int) -> None:
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
    rng = np.random.default_rng(0)
    half = 500_000 // share
    id_scores, ood_scores = rng.normal(1, 1, half), rng.normal(0, 1, half)
    scores, positive = np.concatenate((id_scores, ood_scores)), np.repeat([1, 0], half)

    def theirs() -> dict[str, float]:
        fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
        return {"auroc": roc_auc_score(positive, scores), "aupr_in": average_precision_score(positive, scores),
                "aupr_out": average_precision_score(1 - positive, -scores),
                "fpr95": fpr[np.searchsorted(tpr, 0.95)]}

    def as_openood() -> dict[str, float]:
        fpr, tpr, _ = roc_curve(positive, scores)
        areas = [auc(*precision_recall_curve(p, s)[1::-1]) for p, s in ((positive, scores), (1 - positive, -scores))]
        return {"auroc": auc(fpr, tpr), "aupr_in": areas[0], "aupr_out": areas[1]}

    mine, reference = ood_metrics(id_scores, ood_scores), theirs()
    for key, value in reference.items():
        np.testing.assert_allclose(mine[key], value, atol=2e-6, err_msg=key)
    times = common.turns({"ours": lambda: ood_metrics(id_scores, ood_scores), "sklearn": theirs, "curves": as_openood},
                         repeats)
    more = {"ours, s": common.median(times, "ours"), "scikit-learn, s": common.median(times, "sklearn")}
    for wanted, target in (("", 1.0), (", wanted", 3.0)):
        report.add(Figure(f"Six metrics of {2 * half:,} scores, times scikit-learn's four calls{wanted}",
                          common.ratio(times, "sklearn", "ours"), "", target, n=repeats, more=more))
    report.add(Figure("the same, times one ROC curve and two precision-recall curves with their areas",
                      common.ratio(times, "curves", "ours"), n=repeats))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--share", type=int, default=1, help="divides the sizes: a test of the benchmark")
    args = parser.parse_args()
    report = Report("kernels", "numpy", "scikit-learn")
    with threadpool_limits(args.threads):
        neighbours(report, args.repeats, args.share, args.threads)
        distances(report, args.repeats, args.share)
        four_metrics(report, args.repeats, args.share)
    report.write()


if __name__ == "__main__":
    main()
