"""Scores that another tool computed -> our score file and metrics, so that they stand in the same tables.

    python -m workflow_scripts.stages.import_scores --config '{"id": "digits", "groups": {"far": ["faces"]}, "score":
    "knn",
        "higher_is": "ood", "files": {"faces": 0}}' --files theirs.npz --stores digits.test.h5 faces.test.h5
        --scores seed0.h5 --metrics seed0.csv

`files` gives for each set the number of its file. A file (`.npz` of arrays, `.csv` of columns) holds either an array
named after the set; or `id` and `ood`, or the one of them that the set is; or `scores` (OpenOOD: `conf`) and `labels`,
of both sides or of its set alone; or `scores` of its set alone. `labels`: what they say (`negative_is_ood`,
`one_is_ood`, `one_is_id`). `higher_is`: `id`, or `ood`, which turns the sign. `count`: `same` (as many scores as the
stores have images, in any order) or `any`. Columns of a `.csv` may end before the longest one. Nothing is unpickled.
"""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.mistaken import other_file
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import open_store
from workflow_scripts.metrics.compat import by_rule, ood_images
from workflow_scripts.metrics.ood import checked, ood_metrics
from workflow_scripts.metrics.rows import Row, write
from workflow_scripts.stages.sections.import_scores import ImportScores

ID, OOD = "id", "ood"
SCORES, LABELS = ("scores", "score", "conf"), ("labels", "label")  # conf: OpenOOD's
FORMS = "an array named after its set, id and ood, scores (or conf) and labels, or scores alone"


def read(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` or columns of a ``.csv`` by name.

    Raises:
        OODError: it is missing, cut off, another file or holds objects.
    """
    reason = other_file(path, text=path.suffix.lower() == ".csv")
    try:
        if reason:
            raise ValueError(reason)
        if path.suffix.lower() == ".csv":
            return columns(path)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is a single array without a name")
        with loaded as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise OODError(f"{path}: there is no such file; correct `files` of the entry") from None
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason:
            reason = "it holds Python objects"
        raise OODError(f"{path}: cannot be read ({reason}); expected an .npz of arrays of numbers or a .csv with a "
                       "line of column names") from None


def columns(path: Path) -> dict[str, np.ndarray]:
    """Columns of a ``.csv`` by name, each to its own end; separated by commas, semicolons or tabs.

    Raises:
        OODError: a gap in a column.
        ValueError: no table.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        separator = max(",;\t", key=head.count)
        names = [name.strip() for name in next(csv.reader([head], delimiter=separator), [])]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise OODError(f"{path}: two columns are called '{twice}'; give each a name of its own")
        for number, line in enumerate(file, 2):
            if line.count(separator) >= len(names) and len(next(csv.reader([line], delimiter=separator))) > len(names):
                hint = " (decimal commas? then separate columns by semicolons)" if separator == "," else ""
                raise OODError(f"{path}, line {number}: more values than the {len(names)} columns that the first line "
                               f"names{hint}")
        file.seek(0)
        table = pandas.read_csv(file, sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True,
                                skip_blank_lines=False, index_col=False).fillna("")
    found = {}
    for name in table:
        texts = table[name].str.strip()
        filled = texts.to_numpy() != ""
        end = int(filled.nonzero()[0].max(initial=-1)) + 1
        if not filled[:end].all():
            raise OODError(f"{path}, line {int(filled.argmin()) + 2}: column '{name}' has no value there and goes on "
                           "below; expected a score for each image, or columns that end earlier")
        texts = texts[:end] if separator == "," else texts[:end].str.replace(",", ".")
        try:
            found[name.strip()] = texts.to_numpy(float)
        except ValueError:
            found[name.strip()] = texts.to_numpy(str)
    return found


def split(scores: np.ndarray, labels: np.ndarray, meaning: str, side: str, where: str) -> dict[str, np.ndarray]:
    """ID and OOD scores by their labels, or those of ``side`` alone. scores (N,), labels (N,) whole numbers.

    Args:
        side: what the file's set is.

    Raises:
        OODError: not a label for each score, labels that mean nothing, or the other side alone.
    """
    if labels.shape != scores.shape:
        raise OODError(f"{where}: labels of shape {labels.shape} for scores of shape {scores.shape}; expected one for "
                       "each, (N,)")
    if labels.dtype.kind not in "iufb" or not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
        raise OODError(f"{where}: labels should be whole numbers, found {labels.dtype} such as "
                       f"{labels[:3].tolist()}; name the sides by numbers")
    values = np.unique(labels).astype(int)
    if meaning == "negative_is_ood":
        is_ood, allowed = labels < 0, True
        hint = "; of labels 0 and 1 say which is OOD, labels: one_is_ood or one_is_id"
    else:
        is_ood, allowed = labels == (meaning == "one_is_ood"), set(values.tolist()) <= {0, 1}
        hint = "; expected both 0 and 1, and nothing else"
    if not allowed or (is_ood.all() if side == ID else not is_ood.any()):
        some = ", ".join(map(str, values[:6].tolist())) + (", ..." if len(values) > 6 else "")
        raise OODError(f"{where}: labels {some} do not tell ID from OOD images by labels: {meaning}{hint}")
    return {part: scores[of] for part, of in ((ID, ~is_ood), (OOD, is_ood)) if of.any()}


def sides(content: dict[str, np.ndarray], name: str, side: str, meaning: str, where: str) -> dict[str, np.ndarray]:
    """What a file holds of the set ``name``, which is ``side``: ``{name: scores}``, or ID and OOD scores.

    Raises:
        OODError: none of the forms.
    """
    if name in content and not {ID, OOD} <= content.keys():
        return {name: content[name]}
    if side in content:
        return {part: content[part] for part in (ID, OOD) if part in content}
    scores = next((content[key] for key in SCORES if key in content), None)
    labels = next((content[key] for key in LABELS if key in content), None)
    if scores is None:
        raise OODError(f"{where}: it holds {', '.join(content) or 'nothing'}, expected {FORMS}")
    if labels is None:
        return {name: scores}
    return split(checked(scores, f"{where}, scores"), labels, meaning, side, where)


def gathered(section: ImportScores, files: list[Path]) -> dict[str, np.ndarray]:
    """Set -> its scores (N,) float64, higher = more ID; the ID set among them.

    Raises:
        OODError: see :func:`read`, :func:`sides`; NaN, other shapes; no ID scores, or others in another file.
    """
    id_set = section.id
    found: dict[str, tuple[np.ndarray, Path]] = {}  # and the file that they are from
    contents = [read(path) for path in files]
    for name, number in section.files.items():
        where = f"{files[number]} (set '{name}')"
        parts = sides(contents[number], name, ID if name == id_set else OOD, section.labels, where)
        if name == id_set and OOD in parts:
            raise OODError(f"{where}: it holds ID and OOD scores; name the OOD set that they are of instead")
        for side, values in parts.items():
            place = id_set if side == ID else name
            values = checked(values, f"{where}{f', {side}' if side != name else ''}")
            values = -values if section.higher_is == "ood" else values
            if place in found and not np.array_equal(found[place][0], values):
                raise OODError(f"{where}: other scores of the ID set than in {found[place][1]}; expected those of "
                               "one detector, in the same order; give an entry to each")
            found.setdefault(place, (values, files[number]))
    if id_set not in found:
        raise OODError(f"{', '.join(map(str, files))}: no scores of the ID set '{id_set}'; expected them as id beside "
                       f"ood, by labels, or in a file of their own, e.g. files: {{{id_set}: ./id.npz}}")
    return {name: values for name, (values, _) in found.items()}


def counted(scores: dict[str, np.ndarray], stores: list[Path]) -> None:
    """Refuse other numbers of scores than our sets have images.

    Raises:
        OODError: naming the set.
    """
    for path in stores:
        name = path.name.split(".")[0]
        with open_store(path) as store:
            count = len(store["labels"])
        if name in scores and len(scores[name]) != count:
            raise OODError(f"imported scores, set '{name}': {len(scores[name]):,} scores, our set has {count:,} "
                           "images; if they are of another list of images, say so: count: any")


def rows(section: ImportScores, scores: dict[str, np.ndarray]) -> list[Row]:
    """The metrics of the evaluate stage that need no logits."""
    id_scores, found = scores[section.id], []
    for group, names in section.groups.items():
        for name in names:
            ood_scores = scores[name]
            values = {metric: (value, ood_scores.size) for metric, value in ood_metrics(id_scores, ood_scores).items()}
            for paper in section.compat:
                count = ood_images(paper, id_scores.size, ood_scores.size)
                found_by_rule = by_rule(paper, id_scores, ood_scores)  # what another tool thresholds is not known
                values |= {f"{m}@{paper}": (value, count) for m, value in found_by_rule.items()}
            found += [Row(section.score, name, group, metric, value, id_scores.size, count)
                      for metric, (value, count) in values.items()]
    return found


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, ImportScores)
    parser.add_argument("--files", nargs="+", required=True, type=Path, help="score files")
    parser.add_argument("--stores", nargs="*", default=[], type=Path, help="our stores of the sets, to count images")
    parser.add_argument("--scores", required=True, type=Path, help="HDF5 to write")
    parser.add_argument("--metrics", required=True, type=Path, help="CSV to write")
    args = parser.parse_args(argv)
    section: ImportScores = args.config
    scores = gathered(section, args.files)
    if section.count == "same":
        counted(scores, args.stores)
    with atomic(args.scores) as partial, h5py.File(partial, "w") as out:
        out.attrs.update(score="imported", name=section.score, options="{}")
        for name, values in scores.items():
            out.create_dataset(f"{name}.test", data=values, track_times=False)
    write(rows(section, scores), args.metrics)
    print(", ".join(f"{name}: {len(values)} scores" for name, values in scores.items()))


if __name__ == "__main__":
    main()
