"""Choose the outliers to train against: outlier store (+ record with learned weights) -> numbers of the kept images.

    python -m workflow_scripts.stages.select_outliers --config JSON --store outliers.h5 --out kept.h5

Written: ``kept`` (ascending int64) and the attributes ``images`` (N), ``rule``, ``ratio``, ``size``, ``seed`` and
``stream``.
"""

from __future__ import annotations

import h5py
import numpy as np

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images import selection
from workflow_scripts.data.images.store import open_store
from workflow_scripts.stages.sections.select_outliers import SelectOutliers


def weights(path: str, count: int, store: str) -> np.ndarray:
    """theta (N,) of a training record.

    Raises:
        OODError: the record holds none, of another number of images, or not finite.
    """
    with h5py.File(path, "r") as file:
        if "theta" not in file:
            raise OODError(f"{path} holds no weights of images (theta); a recipe of method resample learns them")
        theta = file["theta"][:]
    if len(theta) != count:
        raise OODError(f"{path} has weights of {len(theta):,} images, {store} has {count:,}; delete the record and "
                       "learn them anew")
    if not np.isfinite(theta).all():
        raise OODError(f"{path}: {np.count_nonzero(~np.isfinite(theta)):,} of {count:,} weights are not finite")
    return theta


@stage
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, SelectOutliers)
    parser.add_argument("--store", required=True, help="store of the outliers")
    parser.add_argument("--weights", help="training record that holds theta, for rule learned")
    parser.add_argument("--out", required=True)
    args = parser.parse_args(argv)
    section: SelectOutliers = args.config
    with open_store(args.store) as file:
        count = len(file["labels"])
    rng = selection.stream(section.seed, section.stream)
    exact = section.size == "exact"
    if section.rule == "random":
        kept = selection.random(count, section.ratio, exact, rng)
    else:
        kept = selection.learned(weights(args.weights, count, args.store), section.ratio, exact, rng)
    if not len(kept):
        raise OODError(f"select.ratio: {section.ratio} of the {count:,} images of {args.store} keeps none")
    with atomic(args.out) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("kept", data=kept.astype(np.int64), track_times=False)
        file.attrs.update({"images": count, **section.model_dump()})
    print(f"{len(kept):,} of {count:,} images kept ({len(kept) / count:.2%})")


if __name__ == "__main__":
    main()
