"""YAML as it is written: keys once, numbers as they look, and errors with file and line. Lists of names and numbers."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkout import ROOT
from workflow_scripts.config.load import given as read_given
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import read_lines, read_numbers, uncommented
from workflow_scripts.core.yaml_files import parse_yaml, read_yaml

WORDS = st.text("abcdeé#: -'\"[]{}.,", min_size=1, max_size=8)
VALUES = st.recursive(
    st.one_of(WORDS, st.integers(-10**6, 10**6), st.booleans(), st.none(),
              st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)), max_leaves=12)
CONFIGURATIONS = st.dictionaries(WORDS, VALUES, min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(content=CONFIGURATIONS, flow=st.sampled_from([None, True, False]), newline=st.sampled_from(["\n", "\r\n"]),
       coding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_what_is_written_is_read(tmp_path_factory, content, flow, newline, coding):
    path = tmp_path_factory.mktemp("yaml") / "c.yaml"
    text = yaml.safe_dump(content, default_flow_style=flow, allow_unicode=True, width=10**6)
    path.write_bytes(text.replace("\n", newline).encode(coding))
    assert read_yaml(path) == content
    path.write_text(json.dumps(content, indent="\t"), encoding="utf-8")
    assert read_yaml(path) == content


@settings(max_examples=100, deadline=None)
@given(content=st.dictionaries(st.text("abc", min_size=1), VALUES, min_size=1, max_size=4), data=st.data())
def test_a_key_given_twice_is_refused_with_both_lines(content, data):
    key = data.draw(st.sampled_from(sorted(content)))
    blocks = [yaml.safe_dump({name: value}, allow_unicode=True, width=10**6) for name, value in content.items()]
    again = data.draw(st.integers(0, len(blocks)))
    blocks.insert(again, f"{key}: 1\n")
    text = "".join(blocks)
    starts = [1 + sum(block.count("\n") for block in blocks[:k]) for k in range(len(blocks))]
    first = list(content).index(key)
    first, second = sorted([starts[again], starts[first + (first >= again)]])
    deeper = "".join(f"    {line}\n" for line in text.splitlines())
    for indented, below in ((text, 0), (f"here:\n- x: 1\n  y:\n{deeper}", 3)):
        with pytest.raises(OODError) as said:
            parse_yaml(indented, "c.yaml")
        assert str(said.value).startswith(
            f"c.yaml: the key '{key}' is given twice in one mapping, in line {first + below} and in line "
            f"{second + below};")


def test_keys_of_other_mappings_and_merged_ones_are_no_second_keys():
    text = "a: &a {x: 1, y: 2}\nb: {x: 3}\nc: &c {<<: *a, x: 4}\nd: {<<: *c}\ne: [{x: 1}, {x: 2}]\n"
    assert parse_yaml(text, "c") == {"a": {"x": 1, "y": 2}, "b": {"x": 3}, "c": {"x": 4, "y": 2},
                                     "d": {"x": 4, "y": 2}, "e": [{"x": 1}, {"x": 2}]}
    with pytest.raises(OODError, match="'x' is given twice in one mapping, in line 1 and in line 1"):
        parse_yaml("a: {x: 1, x: 2}", "c")
    with pytest.raises(OODError, match="'x' is given twice in one mapping, in line 1 and in line 2"):
        parse_yaml('{"x": 1,\n"x": 2}', "c.json")


@pytest.mark.parametrize(("text", "value"), [
    ("1e-3", 0.001), ("1E5", 1e5), ("-2e+3", -2000.0), ("5.e1", 50.0), (".5", 0.5), ("1.", 1.0), ("010", 10),
    ("0x1F", 31), ("0o17", 15), ("1_000", 1000), ("+4", 4), ("-.inf", -math.inf), ("1:30", "1:30"), ("12:30:45",) * 2,
    ("2026-01-02",) * 2, ("1e",) * 2, ("e1",) * 2, ("'1e-3'", "1e-3"), ("1.2.3",) * 2, ("no", False), ("", None)])
def test_numbers_are_what_they_look_like(text, value):
    found = parse_yaml(f"a: {text}", "c")["a"]
    assert found == value and type(found) is type(value)
    assert read_given([], [f"a={text}"], ROOT) == {"a": found}  # on the command line as in a file


@settings(max_examples=200, deadline=None)
@given(number=st.floats(allow_nan=False, allow_infinity=False), form=st.sampled_from(["e", "g", "r", "E"]))
def test_every_way_to_write_a_number_gives_a_number(number, form):
    text = repr(number) if form == "r" else format(number, form)
    assert parse_yaml(f"[{text}]", "c") == [float(text)]


@pytest.mark.parametrize(("content", "message"), [
    (b"variant: caf\xe9\n", "line 1: not UTF-8 (byte 0xe9; as Latin-1 the line reads 'variant: café')"),
    (b"a: 1\r\nb: 2\r\nc: \x80\n", "line 3: not UTF-8"),
    (b"a: 1\n\tb: 2\n", "line 2: not valid YAML"),
    (b"a: 1\nb:\n\t- 2\n", "line 3 is indented by a tab"),
    (b"variant v\ndevice: cpu\n", "line 1 has no colon: 'variant v'"),
    (b"recipes:\n  - name ce\n    label: x\n", "line 2 has no colon: '- name ce'"),
    (b"a: [1, 2\nb: 3\nc: 4\n", "what is open there begins in line 1"),
    (b"a: 'x\nb: 3\n", "what is open there begins in line 1"),
    (b"a: \x01\n", "a character that no text has (0x1)"),
    (b"a: *x\n", "line 1: not valid YAML: found undefined alias"),
    (b"a: !!python/object:os.system {}\n", "line 1: not valid YAML: could not determine a constructor"),
])
def test_what_is_wrong_is_said_with_its_line(tmp_path, content, message):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(OODError) as said:
        read_yaml(tmp_path / "c.yaml")
    assert message in str(said.value) and str(tmp_path / "c.yaml") in str(said.value)
    assert "\n" not in str(said.value)


def test_every_shipped_file_is_read_as_before():
    """But for numbers that PyYAML takes for texts."""
    for path in [ROOT / "config.yaml", *(ROOT / "config").rglob("*.yaml"), ROOT / "CITATION.cff"]:
        old, new = yaml.safe_load(path.read_text(encoding="utf-8")), read_yaml(path)
        assert json.dumps(old, default=str) == json.dumps(new) or path.name == "CITATION.cff", path


def test_files_of_one_command_line_are_merged_key_by_key_each_beside_itself(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text("limit: {images: 4, steps: 1}\nown: ./x\nlist: [1, ./y]\n")
    (tmp_path / "sub" / "b.yaml").write_text("limit: {images: 1e1}\nother: ../x\nlist: [./y]\n")
    found = read_given([tmp_path / "a.yaml", tmp_path / "sub" / "b.yaml"], ["limit={steps: 3}", "third=./z"],
                       tmp_path / "here")
    assert found == {"limit": {"images": 10.0, "steps": 3}, "own": str(tmp_path / "x"), "other": str(tmp_path / "x"),
                     "list": [str(tmp_path / "sub" / "y")], "third": str(tmp_path / "here" / "z")}
    for pairs, message in ((["x"], "KEY=VALUE expected, found 'x'"), (["x={a: 1, a: 2}"], "given twice"),
                           (["x={a: 1"], "--config x, line 1: not valid YAML")):
        with pytest.raises(OODError, match=message):
            read_given([], pairs, tmp_path)


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lists_are_read_from_any_system(tmp_path, coding, newline):
    path = tmp_path / "list.txt"
    path.write_bytes(newline.join(["# a list", "b#1.png", " é.png  # owl", "", "12"]).encode(coding))
    assert [uncommented(line) for line in read_lines(path, "a list")] == ["", "b#1.png", "é.png", "", "12"]
    path.write_bytes(newline.join(["# numbers", "3 4", "5 # five"]).encode(coding))
    assert read_numbers(path, "a list of numbers") == [3, 4, 5]


def test_a_list_in_another_encoding_or_of_other_things_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.png\n\xe9.png\n")
    with pytest.raises(OODError, match=r"list\.txt, line 2: not UTF-8 .*'é\.png'.*save the file as UTF-8"):
        read_lines(path, "a list")
    path.write_text("3\n4,5\n")
    with pytest.raises(OODError, match="line 2: a list of numbers, one number a line, expected; found '4,5'"):
        read_numbers(path, "a list of numbers")
    with pytest.raises(OODError, match="a list cannot be read"):
        read_lines(tmp_path / "none.txt", "a list")


@pytest.mark.parametrize("text", ["1: a\n0x1: b\n", "1: a\n1.0: b\n", "yes: a\ntrue: b\n", "~: a\nnull: b\n"])
def test_a_key_written_in_two_ways_is_given_twice(text):
    with pytest.raises(OODError, match="is given twice in one mapping, in line 1 and in line 2"):
        parse_yaml(text, "c.yaml")


@pytest.mark.parametrize("text", ["a: !!float x", "a: !!int x", "a: 0x_", "a: !!timestamp 2001-01-01x"])
def test_a_value_that_is_not_what_its_tag_says(text):
    with pytest.raises(OODError, match="^c.yaml: a value is not what its tag or form says: ") as said:
        parse_yaml(text, "c.yaml")
    assert "\n" not in str(said.value)
