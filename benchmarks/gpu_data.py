"""CIFAR-10, its near and far sets: official files, or mosaics that are small enough to be moved to another machine.

    python -m benchmarks.gpu_data --data FOLDER --out PACKED      # official files -> mosaics, lossless

A mosaic ``{set}-{part}.webp`` holds up to 10,000 images of 32x32 as tiles, 100 in a row, ``{set}-{part}.npy`` their
labels (uint8). Official files are found by the names in :data:`OFFICIAL` below FOLDER. Images of another size are
brought to 32x32 as OpenOOD does (bilinear, central crop). Where ``openood/imglists.tar.gz`` is there, ID test,
CIFAR-100 and Tiny ImageNet are those of OpenOOD v1.5's lists; their numbers are taken for the place among the images of
the class in the official order, as cifar2png numbers them. Needs numpy and Pillow.
"""

from __future__ import annotations

import argparse
import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDE, ROW, PART = 32, 100, 10_000
SETS = ("cifar10_train", "cifar10_test", "cifar100", "tin", "svhn", "textures", "mnist")
NEAR, FAR = ("cifar100", "tin"), ("svhn", "textures", "mnist")
LISTS = "openood/imglists.tar.gz"


@dataclass(frozen=True)
class Set:
    """``pixels`` (N, 32, 32, 3) uint8, ``labels`` (N,) int64, and what the images are."""

    pixels: np.ndarray
    labels: np.ndarray
    what: str

    def take(self, rows: np.ndarray, what: str) -> Set:
        return Set(self.pixels[rows], self.labels[rows], what)


def load(folder: Path, name: str) -> Set:
    """A set out of mosaics if there are any, else out of official files.

    Raises:
        FileNotFoundError: neither is there; the message says what is looked for.
    """
    parts = sorted(folder.glob(f"{name}-*.webp"))
    if parts:
        with ThreadPoolExecutor() as pool:
            mosaics = list(pool.map(tiles, parts))
        given = [np.load(path.with_suffix(".npy")).astype(np.int64) for path in parts]
        labels = np.concatenate(given)
        pixels = np.concatenate([images[:len(part)] for images, part in zip(mosaics, given, strict=True)])
        notes = [path.with_suffix(".txt") for path in parts]
        return Set(pixels, labels, next((path.read_text().strip() for path in notes if path.is_file()), "mosaics"))
    return OFFICIAL[name](folder)


def tiles(path: Path) -> np.ndarray:
    """The images of a mosaic. -> (N, 32, 32, 3) uint8, black ones at the end where the last row is not full."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as mosaic:
        pixels = np.asarray(mosaic.convert("RGB"))
    rows = pixels.shape[0] // SIDE
    return pixels.reshape(rows, SIDE, ROW, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3)


def write(folder: Path, name: str, part: int, images: Set) -> Path:
    """A mosaic with its labels and a note of what it is. -> its path."""
    from PIL import Image

    count = len(images.labels)
    rows = -(-count // ROW)
    padded = np.zeros((rows * ROW, SIDE, SIDE, 3), np.uint8)
    padded[:count] = images.pixels
    mosaic = padded.reshape(rows, ROW, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(rows * SIDE, ROW * SIDE, 3)
    path = folder / f"{name}-{part}.webp"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(mosaic)).save(path, lossless=True, quality=100, method=4, exact=True)
    np.save(path.with_suffix(".npy"), images.labels.astype(np.uint8))
    path.with_suffix(".txt").write_text(images.what + "\n", encoding="utf-8")
    if not np.array_equal(tiles(path)[:count], images.pixels):
        raise ValueError(f"{path}: the mosaic does not hold the same pixels; is Pillow's WebP lossless?")
    return path


def records(path: Path, leading: int) -> tuple[np.ndarray, np.ndarray]:
    """Official binary records. -> (N, 32, 32, 3) uint8, (N,) int64, the last of the leading bytes."""
    content = np.fromfile(path, np.uint8)
    width = leading + 3 * SIDE * SIDE
    if not len(content) or len(content) % width:
        raise ValueError(f"{path}: {len(content):,} bytes, not a whole number of records of {width:,} bytes; take the "
                         "official binary version again")
    table = content.reshape(-1, width)
    pixels = table[:, leading:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), table[:, leading - 1].astype(np.int64)


def train(folder: Path) -> Set:
    """Official batches; in the place of those that are not there the mosaics of ``train_rest``."""
    batches = sorted(needed(folder / "cifar10").glob("data_batch_*.bin"))
    pairs = [records(path, 1) for path in batches]
    what = f"{len(batches)} official batches"
    rest = folder / "cifar10" / "train_rest"
    if len(batches) < 5 and (rest / "labels.npy").is_file():
        labels, start = np.load(rest / "labels.npy"), 0
        for path in sorted(rest.glob("m*.webp")):
            part = labels[start:start + PART].astype(np.int64)
            pairs.append((tiles(path)[:len(part)], part))
            start += len(part)
        what += ", the rest from mosaics"
    if not pairs:
        raise FileNotFoundError(f"{folder}/cifar10: neither data_batch_*.bin nor train_rest/m*.webp is there")
    return Set(*(np.concatenate(column) for column in zip(*pairs, strict=True)), what)


def test(folder: Path) -> Set:
    whole = Set(*records(needed(folder / "cifar10" / "test_batch.bin"), 1), "all 10,000 test images")
    names = needed(folder / "cifar10" / "batches.meta.txt").read_text().split()
    return listed(folder, "test_cifar10", whole, names)


def cifar100(folder: Path) -> Set:
    whole = Set(*records(needed(folder / "cifar100" / "test.bin"), 2), "all 10,000 test images")
    names = needed(folder / "cifar100" / "fine_label_names.txt").read_text().split()
    return listed(folder, "test_cifar100", whole, names)


def paths(folder: Path, name: str) -> list[str] | None:
    """The paths of one of OpenOOD's lists for CIFAR-10; ``None`` where the lists are not there."""
    if not (folder / LISTS).is_file():
        return None
    with tarfile.open(folder / LISTS) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith(f"cifar10/{name}.txt"))
        return [line.split()[0] for line in archive.extractfile(member).read().decode().splitlines()]


def listed(folder: Path, name: str, whole: Set, names: list[str]) -> Set:
    """The images of a list whose lines end in ``{class}/{number}.png``, number from 1 within the class."""
    lines = paths(folder, name)
    if lines is None:
        return whole
    places = [np.flatnonzero(whole.labels == label) for label in range(len(names))]
    parts = [line.split("/")[-2:] for line in lines]
    rows = np.sort([places[names.index(word)][int(file.split(".")[0]) - 1] for word, file in parts])
    return whole.take(rows, f"{len(rows):,} test images of OpenOOD v1.5's list")


def tin(folder: Path) -> Set:
    archive = needed(folder / "tiny_imagenet" / "tiny-imagenet-200_val.tar")
    lines = paths(folder, "test_tin")
    wanted = {line.rsplit("/", 1)[1] for line in lines} if lines else None
    whole = pictures([archive], lambda name: wanted is None or name in wanted, "validation images")
    return Set(whole.pixels, whole.labels, whole.what + (" of OpenOOD v1.5's list" if lines else ""))


def svhn(folder: Path) -> Set:
    archives = sorted(needed(folder / "svhn").glob("svhn_t*_color.tar"), key=lambda path: "train" in path.name)
    return pictures(archives, lambda name: True, "crops (a few of test, the others of train)")


def textures(folder: Path) -> Set:
    archives = sorted(needed(folder / "textures").glob("*.tar"))
    return pictures(archives, lambda name: True, "images of 10 of the 47 classes of DTD")


def pictures(archives: list[Path], wanted: Callable[[str], bool], what: str) -> Set:
    """Images of tar archives at 32x32, without labels."""
    from PIL import Image

    from workflow_scripts.data.images.geometry import fit

    def each() -> Iterator[np.ndarray]:
        for path in archives:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = member.name.rsplit("/", 1)[-1]
                    if member.isfile() and name.lower().endswith((".jpg", ".jpeg", ".png")) and wanted(name):
                        with Image.open(io.BytesIO(archive.extractfile(member).read())) as picture:
                            yield np.asarray(fit(picture.convert("RGB"), f"crop{SIDE}"))

    pixels = np.stack(list(each()))
    return Set(pixels, np.full(len(pixels), 255), f"{len(pixels):,} {what}")


def mnist(folder: Path) -> Set:
    from PIL import Image

    from workflow_scripts.data.images.geometry import fit

    with gzip.open(needed(folder / "mnist" / "t10k-images-idx3-ubyte.gz")) as file:
        grey = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    pixels = np.stack([np.asarray(fit(Image.fromarray(image).convert("RGB"), f"crop{SIDE}")) for image in grey])
    return Set(pixels, np.full(len(pixels), 255), f"{len(pixels):,} test images")


def needed(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there, and no mosaic either; name the folder of the data by --data")
    return path


OFFICIAL: dict[str, Callable[[Path], Set]] = {
    "cifar10_train": train, "cifar10_test": test, "cifar100": cifar100, "tin": tin, "svhn": svhn,
    "textures": textures, "mnist": mnist,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_data", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the official files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the mosaics")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--images", type=int, default=PART, help="in a mosaic (default: %(default)s)")
    args = parser.parse_args()
    for name in args.sets:
        whole = load(args.data, name)
        for part, start in enumerate(range(0, len(whole.labels), args.images)):
            rows = np.arange(start, min(start + args.images, len(whole.labels)))
            path = write(args.out, name, part, whole.take(rows, whole.what))
            print(f"{path.name}: {len(rows):,} images, {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
