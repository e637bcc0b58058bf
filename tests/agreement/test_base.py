"""Printed numbers as text, and when ours agree."""

from __future__ import annotations

import numpy as np
import pytest

from workflow_scripts.agreement import base
from workflow_scripts.core.errors import OODError


@pytest.mark.parametrize(("printed", "agrees", "differs"), [
    ("6.56", (6.556, 6.564, 6.565), (6.554, 6.566)),
    ("35", (34.5, 35.4), (34.4, 35.6)),
    ("-1.0", (-1.04,), (-0.9, 1.0)),
    ("0.21 +/- 0.03", (0.1, 0.32), (0.099, 0.321)),  # three deviations of at most 0.035, and half a digit
    ("5.00 +/- 0.00", (4.98, 5.02), (4.979, 5.021)),
    ("0 within 1e-5", (1e-5, -1e-5), (1.1e-5,)),
    ("12.3 within 2.0", (10.3, 14.3), (10.2, 14.4))])
def test_a_value_agrees_as_far_as_the_printed_text_allows(printed, agrees, differs):
    for value in agrees:
        assert base.lines({"q": printed}, {"q": value}, "check")[0].agrees
    for value in differs:
        assert not base.lines({"q": printed}, {"q": value}, "check")[0].agrees


@pytest.mark.parametrize("printed", ["", "about 3", "3 +- 1", "3 within", "nan", "3 +/- 1 +/- 2"])
def test_other_texts_are_refused(printed):
    with pytest.raises(OODError, match=f"check, q: '{printed}' is no printed number; expected such as 6.56".replace(
            "+", r"\+")):
        base.lines({"q": printed}, {"q": 1.0}, "check")


def test_a_quantity_that_one_side_lacks_is_named_with_the_nearest():
    with pytest.raises(OODError, match=r"check 'x': 'test eror' is not computed.*'test error'"):
        base.lines({"test eror": "1"}, {"test error": 1.0}, "check 'x'")
    with pytest.raises(OODError, match="check 'x': 'b' is not printed"):
        base.lines({"a": "1"}, {"a": 1.0, "b": 2.0}, "check 'x'")


def test_images_are_chosen_evenly():
    assert base.Given({}, 0).chosen(4).tolist() == [0, 1, 2, 3]
    assert base.Given({}, 0, 3).chosen(9).tolist() == [0, 4, 8]
    assert base.Given({}, 0, 30).chosen(9).tolist() == list(range(9))


def test_several_files_where_one_is_expected(tmp_path):
    given = base.Given({"a": (tmp_path / "1", tmp_path / "2")}, 0)
    with pytest.raises(OODError, match="file 'a': one file expected, found 2"):
        given.file("a")


def test_inputs_are_normalised_per_channel():
    photos = np.arange(2 * 1 * 1 * 3, dtype=np.uint8).reshape(2, 1, 1, 3)
    x = base.inputs(photos, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))
    assert x.shape == (2, 3, 1, 1)
    np.testing.assert_allclose(x.flatten(1).numpy(), (photos.reshape(2, 3) / 255 - [0.5, 0.25, 0]) / [0.5, 0.5, 1],
                               rtol=1e-6)
