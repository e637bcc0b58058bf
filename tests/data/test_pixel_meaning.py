"""What pixels of other kinds become: 16 bits, float, bool, palettes, alpha, orientation; and what has no meaning."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.lmdb_data import folder, packed
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.decoding import decode
from workflow_scripts.data.images.rows import Encoded
from workflow_scripts.data.images.store import load_store
from workflow_scripts.stages.prepare_dataset import prepare
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset

GRADIENT = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
EIGHT = (GRADIENT >> 8).astype(np.uint8)


def encoded(image: Image.Image, form: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def store(root: Path, reader: str, **options: object):
    """The store of a set, and what was said of it."""
    section = PrepareDataset.of(dataset="mine", split="test", reader=reader, options=options, classes=0,
                                geometry="native", limit_per_class=None, sample=None, count=None, raw=[])
    notes = prepare(section, root / "s.h5", root)
    return load_store(root / "s.h5"), notes


@pytest.mark.parametrize("reader", ["images", "lmdb_images"])
def test_one_gradient_in_every_depth(tmp_path, reader):
    """16-bit grey came out white where it was above 255 and float in 0..1 black."""
    pgm = b"P5 8 8 65535\n" + GRADIENT.astype(">u2").tobytes()
    folder(tmp_path / "x", {
        "a16.png": encoded(Image.fromarray(GRADIENT), "PNG"), "b16.tif": encoded(Image.fromarray(GRADIENT), "TIFF"),
        "c16.ppm": pgm, "d8.png": encoded(Image.fromarray(EIGHT), "PNG"),
        "e_float.tif": encoded(Image.fromarray((GRADIENT / 65535).astype(np.float32)), "TIFF")})
    images, notes = store(tmp_path, reader, files="x")
    for number in range(4):
        assert np.array_equal(images.images[number], np.stack([EIGHT] * 3, -1)), images.names[number]
    assert np.array_equal(images.images[4, ..., 0], np.rint(GRADIENT / 65535 * 255))
    said = {record["reason"]: record["count"] for record in images.attrs["remarks"]}
    assert said == {"images of 16 bits a channel, of which the high byte is taken": 3,
                    "images of float values in 0..1, times 255": 1}
    assert any("high byte is taken: 3 (a16.png, b16.tif, c16.ppm)" in note for note in notes)


def test_images_decoded_from_their_archive_are_the_same(tmp_path):
    folder(tmp_path / "x", {"a.png": encoded(Image.fromarray(GRADIENT), "PNG")})
    rows = Encoded(packed(tmp_path).path, np.arange(1), "squash8")
    assert np.array_equal(rows[:][0, ..., 0], EIGHT)


def test_colour_of_16_bits_is_counted(tmp_path):
    import tifffile
    tifffile.imwrite(buffer := io.BytesIO(), np.stack([GRADIENT] * 3, -1))
    found = decode(buffer.getvalue())
    assert np.array_equal(found.pixels[..., 1], EIGHT)
    assert [remark.split(",")[0] for remark, _ in found.remarks] == ["images of 16 bits a channel"]


def test_twelve_bits_in_sixteen_are_noticed():
    found = decode(encoded(Image.fromarray(GRADIENT >> 5), "PNG"))
    assert any("low 12" in remark for remark, _ in found.remarks)


@pytest.mark.parametrize("values", [GRADIENT.astype(np.float32), -GRADIENT.astype(np.float32) / 65535,
                                    np.full((8, 8), np.nan, np.float32), GRADIENT.astype(np.int32)])
def test_values_without_meaning_are_refused_whatever_is_allowed(tmp_path, values):
    folder(tmp_path / "x", {"a.tif": encoded(Image.fromarray(values), "TIFF")})
    for reader in ("images", "lmdb_images"):
        with pytest.raises(OODError, match=r"a.tif: (float|32-bit whole) numbers from .* no pixels that have one mean"):
            store(tmp_path, reader, files="x", allow_corrupt=1)
    with pytest.raises(OODError, match=r"a.tif: (float|32-bit whole) numbers"):
        packed(tmp_path, allow_corrupt=1)


def test_orientation_is_not_applied_and_counted():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(pixels)
    found = decode(encoded(image, "PNG", exif=exif))
    assert np.array_equal(found.pixels[..., 0], pixels)
    assert found.remarks == (("images with an EXIF orientation, which is not applied", 1),)
    turned = decode(encoded(image, "TIFF", exif=exif))  # by Pillow, when it loads one
    assert np.array_equal(turned.pixels[..., 0], np.rot90(pixels, -1))
    assert turned.remarks == (("images turned as their TIFF orientation says", 1),)
    exif[0x0112] = 1
    assert decode(encoded(image, "PNG", exif=exif)).remarks == ()


def test_alpha_palette_and_cmyk():
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[..., 0], clear[0, 0, 3] = 200, 255
    found = decode(encoded(Image.fromarray(clear), "PNG"))
    assert (found.pixels == [200, 0, 0]).all()  # the colour below, as torchvision's loader has it
    assert found.remarks == (("images with transparent pixels, whose alpha is dropped", 1),)
    clear[..., 3] = 255
    assert decode(encoded(Image.fromarray(clear), "PNG")).remarks == ()
    palette = Image.fromarray(EIGHT).convert("P")
    assert np.array_equal(decode(encoded(palette, "PNG")).pixels, np.asarray(palette.convert("RGB")))
    cmyk = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(cmyk.pixels.astype(int) - [255, 0, 0]).max() <= 3
    assert cmyk.remarks == (("images in CMYK, brought to RGB", 1),)


# ---- arrays ----------------------------------------------------------------------------------------------------------

COLOUR = np.stack([np.stack([GRADIENT] * 3, -1)] * 2)


@pytest.mark.parametrize(("values", "expected", "said"), [
    (COLOUR, COLOUR >> 8, "of which the high byte is taken"),
    ((COLOUR / 65535).astype(np.float16), np.rint((COLOUR / 65535).astype(np.float16).astype(np.float32) * 255),
     "times 255"),
    ((COLOUR / 65535), np.rint((COLOUR / 65535).astype(np.float32) * 255), "times 255"),
    (COLOUR > 30000, (COLOUR > 30000) * 255, ""), ((COLOUR >> 8).astype(np.uint8), COLOUR >> 8, "")])
@pytest.mark.parametrize("form", ["npz", "npy", "h5"])
def test_arrays_of_every_depth(tmp_path, form, values, expected, said):
    if form == "npz":
        np.savez(tmp_path / "a.npz", images=values)
    elif form == "npy":
        np.save(tmp_path / "a.npy", values)
    else:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["train/images"] = values
    where = {"images": "train/images"} if form == "h5" else {}
    images, notes = store(tmp_path, "arrays", files=f"a.{form}", **where)
    assert np.array_equal(images.images, expected)
    assert said in " ".join(notes) and bool(notes) == bool(said)


@pytest.mark.parametrize(("values", "words"), [
    (np.full((4, 8, 8, 3), 200, np.float32), r"from 200 to 200, .*as pixels in 0..255 they become x.round\(\).astype"),
    (np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 8, 8), r"from -1 to 1, .*\(\(x \+ 1\) \* 127.5\).round"),
    (np.full((4, 8, 8), np.nan), "from nan to nan"),
    (np.full((4, 8, 8), 255, np.uint16), r"from 255 to 255, .*x.astype\('uint8'\)"),
    (np.full((4, 8, 8), 300, np.int64), "from 300 to 300, .*scale them to 0..255 and round"),
    (np.eye(8, dtype=np.uint8)[None].repeat(4, 0), "all values of the 4 images are 0 or 1, of 255.* multiply them by"),
])
def test_arrays_without_meaning(tmp_path, values, words):
    np.savez(tmp_path / "a.npz", images=values)
    with pytest.raises(OODError, match=words):
        store(tmp_path, "arrays", files="a.npz")
    assert not (tmp_path / "s.h5").exists()


def test_an_array_of_a_group_is_named_in_errors(tmp_path):
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["train/images"], file["y"] = np.zeros((4, 8, 8), np.uint8), np.zeros(4, int)
    for option, words in ({"images": "images"}, "no array 'images'.*it holds train/images, y; .*option `images`"), (
            {"images": "train/images", "labels": "z"}, "no array 'z'; .*option `labels`"):
        with pytest.raises(OODError, match=words):
            store(tmp_path, "arrays", files="g.h5", **option)


def test_masks_saved_as_0_and_1_are_refused_and_images_of_one_colour_counted(tmp_path):
    folder(tmp_path / "x", {f"{i}.png": encoded(Image.fromarray(np.eye(8, dtype=np.uint8)), "PNG") for i in range(3)})
    with pytest.raises(OODError, match=r"dataset 'mine' \(test\): all values of the 3 images are 0 or 1"):
        store(tmp_path, "images", files="x")
    folder(tmp_path / "x", {"0.png": encoded(Image.new("L", (8, 8), 40), "PNG")})
    images, notes = store(tmp_path, "images", files="x")
    assert notes == ["dataset 'mine' (test): images of one colour: 1 (0.png)"] and len(images.names) == 3
