"""The section of a stage: built by the workflow, read by the stage, checked in the same way at both ends."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.section import Section, options_of, stage_parser


class Point(Section):
    x: float
    """Across."""


class Net(Section):
    name: str
    """Name."""
    model: str
    """Module."""
    options: Annotated[Any, options_of("models", "model", "network '{name}'")]
    """Options of the module."""


class Fitting(Section):
    network: Net
    """The network."""
    place: Point | Literal["nowhere"] = "nowhere"
    """Where."""
    size: int | Literal["auto"] | None = None
    """Images."""


NET = {"name": "n", "model": "resnet_cifar", "options": {}}


def test_a_section_is_the_same_after_its_text_to_the_last_digit():
    section = Fitting.of(network=NET, place=Point(x=0.1 + 0.2), size=3)
    assert Fitting.load(section.dump()) == section
    assert '"x":0.30000000000000004' in section.dump()
    assert Point.load(Point.of(x=float("inf")).dump()).x == float("inf")
    assert section.network.options.width == 64  # of the plugin's own class, with its defaults


def test_an_entry_with_more_attributes_gives_its_part():
    class Entry:
        x, label = 1, "no part of it"

    assert Point.taken_from(Entry()) == Point(x=1.0)


@pytest.mark.parametrize(("fields", "said"), [
    ({"network": NET, "sise": 3}, "sise: unknown key 'sise'; did you mean 'size'? Allowed here: network, place, size."),
    ({"size": 3}, "network: required but missing; expected network, place, size, found size"),
    ({"network": NET, "size": "auot"}, "size: Input should be a valid integer or 'auto' (found 'auot'); did you mean "
                                       "'auto'?"),
    ({"network": NET, "size": "3"}, "size: Input should be a valid integer or 'auto' (found '3')"),
    ({"network": NET, "size": True}, "size: Input should be a valid integer or 'auto' (found True)"),
    ({"network": NET, "place": {"y": 1}}, "place.y: unknown key 'y'. Allowed here: x."),
    ({"network": NET, "place": {}}, "place.x: required but missing; expected x, found nothing"),
    ({"network": {**NET, "modle": ""}}, "network.modle: unknown key 'modle'; did you mean 'model'? Allowed here: name, "
                                        "model, options."),
    ({"network": {**NET, "options": 3}}, "network.options: a mapping of options expected, found 3"),
])
def test_both_ends_refuse_with_one_line(fields: dict[str, Any], said: str):
    with pytest.raises(OODError) as wired:
        Fitting.of(**fields)
    with pytest.raises(OODError) as read:
        Fitting.load(json.dumps(fields))
    assert str(wired.value) == f"section test_sections.{said}"
    assert str(read.value) == f"--config.{said}"


def test_a_wrong_option_of_a_plugin_is_named_with_its_place():
    with pytest.raises(OODError, match="^network 'n'.widht: unknown key 'widht'; did you mean 'width'?"):
        Fitting.of(network={**NET, "options": {"widht": 3}})


def test_help_and_config_argument_come_from_the_section(tmp_path, capsys: pytest.CaptureFixture[str]):
    parser = stage_parser(__spec__, "Do it.", Fitting)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    for part in ("Do it.", "Images. (left out: null)", "keys of Net:", "Options of the module."):
        assert part in text
    section = Fitting.of(network=NET)
    (tmp_path / "section.json").write_text(section.dump())
    for argument in (section.dump(), str(tmp_path / "section.json")):
        assert parser.parse_args(["--config", argument]).config == section
    with pytest.raises(OODError, match="JSON text of a mapping or the path of a JSON file"):
        parser.parse_args(["--config", "nowhere.json"])
