"""Two facts of ImageNet: the classes of the validation images (development kit), and lists of classes.

The development kit of ILSVRC 2012 gives a number per validation image (``..._ground_truth.txt``) and, in ``meta.mat``,
the WordNet id of each number; the 1,000 numbers that have no children are the classes.
"""

from __future__ import annotations

import io
from pathlib import Path

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import read_lines, uncommented
from workflow_scripts.data.archives.unpack import members

REPOSITORY = Path(__file__).resolve().parents[3]
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def validation_classes(devkit: Path) -> dict[str, str]:
    """``ILSVRC2012_val_00000001`` -> WordNet id, for all validation images.

    Args:
        devkit: ``ILSVRC2012_devkit_t12.tar.gz`` or the folder it unpacks to.

    Raises:
        OODError: it lacks the two files, or they are not what ImageNet publishes.
    """
    import scipy.io  # half a second, only here

    again = "take ILSVRC2012_devkit_t12.tar.gz from ImageNet again"
    if devkit.is_dir():
        contents = {path.name: path.read_bytes() for path in devkit.rglob("*") if path.name in (TRUTH, META)}
    else:
        contents = {}
        for member in members(devkit):
            name = Path(member.name).name
            if name in (TRUTH, META):
                contents[name] = member.read()
    if len(contents) < 2:
        raise OODError(f"{devkit}: {TRUTH} and {META} expected in it; {again}")
    try:
        rows = scipy.io.loadmat(io.BytesIO(contents[META]), squeeze_me=True)["synsets"]
        wnid = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows if int(row["num_children"]) == 0}
        numbers = [int(line) for line in contents[TRUTH].split()]
        return {f"ILSVRC2012_val_{i:08d}": wnid[number] for i, number in enumerate(numbers, 1)}
    except Exception as error:  # scipy raises what its parser stumbles over
        raise OODError(f"{devkit}: not ImageNet's development kit ({type(error).__name__}: {error}); {again}") from None


def class_list(name: str) -> list[str]:
    """Classes of a list file, in its order: one a line, ``#`` starts a comment. Relative names: below the repository.

    Raises:
        OODError: missing, empty, or a class twice.
    """
    path = REPOSITORY / name
    lines = read_lines(path, "the list of classes")
    classes = [words[0] for words in (uncommented(line).split() for line in lines) if words]
    if not classes or len(set(classes)) != len(classes):
        raise OODError(f"{path}: a class a line expected, each once; found {len(classes)}, {len(set(classes))} of them "
                       "distinct")
    return classes
