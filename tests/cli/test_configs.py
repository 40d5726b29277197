"""Labelling configs and prompts as the command line takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from svac_backend.cli import inputs
from svac_backend.cli.inputs import check_prompts, prompt_labels, read_config, shipped_config
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.settings import Settings


@pytest.mark.parametrize(
    ("kind", "masks", "file"),
    [
        ("brush", "brush", "brush_frames.xml"),
        ("polygon", "polygon", "polygon_frames.xml"),
        ("boxes", "polygon", "boxes_overview.xml"),
    ],
)
def test_shipped_config_takes_further_labels(kind: str, masks: str, file: str) -> None:
    xml = shipped_config(["car", 'a "quoted" <dog> & cat', "car", "object"], kind=kind)
    config = parse_config(xml)
    assert config.mask_control().kind == masks
    colours = ["object", *(f"object {number}" for number in range(2, 7))]
    labels = [*colours, "car", 'a "quoted" <dog> & cat']
    assert list(config.mask_control().labels) == labels
    assert [list(boxes.labels) for boxes in config.box_tracks] == [labels]
    assert (config.overview is not None) == (kind == "boxes")
    assert config == parse_config(shipped_config(["car", 'a "quoted" <dog> & cat'], kind=kind))
    assert "Your labels." in xml, "the comments stay"
    plain = parse_config(shipped_config(kind=kind))
    assert plain == parse_config((inputs.SHIPPED / file).read_text())


def test_a_missing_shipped_config_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inputs, "SHIPPED", tmp_path)
    with pytest.raises(SvacError, match="not installed"):
        shipped_config()


@pytest.mark.parametrize(
    ("prompts", "labels"),
    [
        (["car: the red car", "the dog", " bus : b", "car: another"], ["car", "bus"]),
        (["dog:", ": the dog", ""], []),
        (["car: the red car\ndog: the dog"], ["car", "dog"]),
        (["the man at 12:30", "car:the red car", "the sign that says: STOP"], []),
    ],
)
def test_labels_of_prompts(prompts: list[str], labels: list[str]) -> None:
    assert prompt_labels(prompts) == labels


def test_prompts_of_a_config(settings: Settings) -> None:
    config = parse_config(shipped_config(["car", "left: far"]))
    wishes = check_prompts(["CAR: the red one", "left: far: a tree", "the sky"], config, settings)
    assert [(wish.object_id, wish.label, wish.expression) for wish in wishes] == [
        ("obj1", "car", "the red one"),
        ("obj2", "left: far", "a tree"),
        ("obj3", "object", "the sky"),
    ]
    assert [wish.expression for wish in check_prompts([], config, settings)] == ["object", "car", "left: far"]
    several = check_prompts(["the sky", "car: the red one", "a tree", "object 2: a bush"], config, settings)
    assert [wish.label for wish in several] == ["object", "car", "object 3", "object 2"]


@pytest.mark.parametrize("prompt", ["the man at 12:30", "the sign that says: STOP", "12:30 on the clock"])
def test_a_colon_in_a_sentence_makes_no_label(settings: Settings, prompt: str) -> None:
    (wish,) = check_prompts([prompt], parse_config(shipped_config(prompt_labels([prompt]))), settings)
    assert (wish.label, wish.expression) == ("object", prompt)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["dog: the dog"], "no label 'dog'"),
        (["the sky", "the clock: at 10:30"], "no label 'the clock'"),
        (["\u200b"], "is empty"),
        (["the sky\ndog: the dog"], "no label 'dog'"),
        ([""], "is empty"),
        (["the sky", "  \n "], "is empty"),
        (["object:"], "is empty"),
        (["x" * 501], "501 characters"),
    ],
)
def test_prompts_that_are_refused(settings: Settings, prompts: list[str], message: str) -> None:
    with pytest.raises(SvacError, match=message) as caught:
        check_prompts(prompts, parse_config(shipped_config()), settings)
    assert caught.value.hint


def test_config_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.xml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.xml", tmp_path, binary):
        with pytest.raises(SvacError) as caught:
            read_config(path)
        assert str(path) in caught.value.message
    with_mark = tmp_path / "mark.xml"
    with_mark.write_bytes("\ufeff<View/>".encode())
    assert read_config(with_mark) == "<View/>"


def test_shipped_configs_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("polygon_frames", "polygon_frames.xml"):
        assert parse_config(read_config(Path(name))).mask_control().kind == "polygon"
    (tmp_path / "polygon_frames.xml").write_text("<View/>")
    assert read_config(Path("polygon_frames.xml")) == "<View/>", "a file of one's own goes first"
    with pytest.raises(SvacError, match="cannot be read") as caught:
        read_config(tmp_path / "boxes_overview.xml")
    assert "boxes_overview.xml, brush_frames.xml" in caught.value.hint
