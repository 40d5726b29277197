"""Labelling configs: what they can show, and what is said when they cannot."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import BoxTracks, FramesTag, TextControl, parse_config

CONFIGS = Path(__file__).parents[2] / "labelstudio_config"
FRAMES = '<Image name="frames" valueList="$frames"/>'


@pytest.mark.parametrize(
    ("file", "kind", "overview"),
    [
        ("brush_frames.xml", "brush", False),
        ("polygon_frames.xml", "polygon", False),
        ("boxes_overview.xml", "polygon", True),
    ],
)
def test_shipped_configs_show_masks_on_frames(file: str, kind: str, overview: bool) -> None:
    config = parse_config((CONFIGS / file).read_text())
    assert config.frames == FramesTag("frames", "frames")
    assert config.video is not None
    assert (config.video.key, config.video.fps_key) == ("video", "fps")
    assert config.text == TextControl("prompt", "frames")
    control = config.mask_control()
    assert (control.kind, control.name, control.to_name) == (kind, "mask", "frames")
    colours = ("object", *(f"object {number}" for number in range(2, 7)))
    assert (tuple(control.labels), control.colours) == (colours, colours)
    smart = [tag for tag in ElementTree.parse(CONFIGS / file).iter() if tag.get("smart") == "true"]
    assert [(tag.tag, [label.get("value") for label in tag]) for tag in smart if len(tag)] == [
        ("KeyPointLabels", ["positive", "negative", "propagate", "remove"]),
        ("RectangleLabels", ["object_box"]),
    ]
    assert config.box_tracks == (BoxTracks("box", "video", colours, "boxlabel", overview),)
    assert (config.overview is not None) == overview


def test_every_shipped_config_is_tested() -> None:
    assert {path.name for path in CONFIGS.iterdir()} == {
        "boxes_overview.xml",
        "brush_frames.xml",
        "polygon_frames.xml",
    }


def test_value_expressions_labels_prompts_and_aliases() -> None:
    config = parse_config(
        '<View><image name="i" valuelist="no"/><Image name="pics" valueList=" $stills "/>'
        '<Video name="clip" value="$url" framerate="29.97"/>'
        '<PolygonLabels name="shape" toName="pics"><Label value="car" prompt=" the  red car "/>'
        '<Label value="Person" alias="person"/><Label value="$dynamic"/><Label value="cat" prompt=" "/>'
        "</PolygonLabels></View>"
    )
    assert config.frames == FramesTag("pics", "stills")
    assert config.video is not None
    assert (config.video.key, config.video.framerate, config.video.fps_key) == ("url", "29.97", None)
    control = config.mask_control()
    assert control.labels == {"car": "the red car", "person": None, "cat": None}
    assert control.find_label("CAR ") == "car"
    assert control.find_label("dog") is None


def test_brush_goes_before_polygon_unless_asked() -> None:
    label = '<Label value="o"/>'
    config = parse_config(
        f'<View>{FRAMES}<BitmaskLabels name="b" toName="frames">{label}</BitmaskLabels>'
        f'<PolygonLabels name="p" toName="frames">{label}</PolygonLabels>'
        f'<BrushLabels name="m" toName="frames">{label}</BrushLabels></View>'
    )
    assert [control.kind for control in config.controls] == ["bitmask", "polygon", "brush"]
    assert config.mask_control().name == "m"
    assert config.mask_control("polygon").name == "p"
    with pytest.raises(SvacError, match="bitmask"):
        config.mask_control("bitmask")


def test_frames_are_the_image_list_that_masks_draw_on() -> None:
    config = parse_config(
        '<View><Image name="thumbs" valueList="$thumbs"/><Image name="frames" valueList="$frames"/>'
        '<BrushLabels name="m" toName="frames"><Label value="o"/></BrushLabels></View>'
    )
    assert config.frames == FramesTag("frames", "frames")


def test_brush_beside_labels_is_a_pair() -> None:
    config = parse_config(
        f'<View>{FRAMES}<Brush name="b" toName="frames"/>'
        '<Labels name="l" toName="frames"><Label value="o"/></Labels></View>'
    )
    control = config.mask_control()
    assert (control.kind, control.name, control.labels_name, control.labels) == (
        "brush",
        "b",
        "l",
        {"o": None},
    )


def test_prompt_text_is_on_the_frames_and_no_region_note() -> None:
    config = parse_config(
        '<View><TextArea name="note" toName="frames" perRegion="true"/>'
        '<TextArea name="prompt" toName="video"/><Video name="video" value="$video"/>'
        f'<TextArea name="ask" toName="frames,video" smart="true"/>{FRAMES}</View>'
    )
    assert config.text == TextControl("ask", "frames")


@pytest.mark.parametrize(
    ("areas", "target"),
    [
        (
            '<TextArea name="notes" toName="frames"/><TextArea name="ask" toName="video" smart="true"/>',
            "video",
        ),
        (
            '<TextArea name="prompt" toName="frames"/><TextArea name="ask" toName="frames" smart="true"/>',
            "frames",
        ),
        (
            '<TextArea name="notes" toName="frames"/><TextArea name="ask" toName="frames" smart="true"/>',
            "frames",
        ),
    ],
)
def test_only_a_smart_field_asks_the_model(areas: str, target: str) -> None:
    config = parse_config(f'<View>{areas}<Video name="video" value="$video"/>{FRAMES}</View>')
    assert config.text == TextControl("ask", target)


@pytest.mark.parametrize(
    ("xml", "message", "hint"),
    [
        ("", "no labelling config", "brush_frames.xml"),
        ("<View>", "not well-formed", "Labeling Interface"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><View>&x;</View>', "refused", "DOCTYPE"),
        ("<View/>", "no <Image valueList>", "brush_frames.xml"),
        ('<View><Image name="i" value="$i"/></View>', "'i' has no valueList", 'valueList="$frames"'),
        (
            '<View><Video name="v" value="$v"/><BrushLabels name="m" toName="v"/></View>',
            "cannot draw masks on <Video>",
            "brush_frames.xml",
        ),
        (f"<View>{FRAMES}</View>", 'no <BrushLabels> or <PolygonLabels> with toName="frames"', "Label"),
        (
            f'<View>{FRAMES}<BitmaskLabels name="m" toName="frames"/></View>',
            "only bitmask 'm'",
            "polygon_frames.xml",
        ),
        (
            f'<View>{FRAMES}<Video name="v" value="$v"/>'
            '<BrushLabels name="m" toName="v"><Label value="o"/></BrushLabels></View>',
            "brush 'm' draws on 'v'",
            "Add one",
        ),
        (
            f'<View>{FRAMES}<BrushLabels name="m" toName="frames"/></View>',
            "'m' has no <Label>",
            "Label value",
        ),
        (f'<View>{FRAMES}<Brush name="m" toName="frames"/></View>', "'m' has no <Label>", "Label value"),
    ],
)
def test_what_cannot_be_shown_is_said(xml: str, message: str, hint: str) -> None:
    with pytest.raises(SvacError) as caught:
        parse_config(xml).mask_control()
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_asking_for_a_kind_that_is_not_there() -> None:
    xml = f'<View>{FRAMES}<BrushLabels name="m" toName="frames"><Label value="o"/></BrushLabels></View>'
    with pytest.raises(SvacError, match=r"no <PolygonLabels>.*only brush 'm'"):
        parse_config(xml).mask_control("polygon")


def test_entities_do_not_expand() -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>'
    with pytest.raises(SvacError, match="refused"):
        parse_config(bomb)


def test_boxes_on_frames_are_masks_unless_they_only_steer() -> None:
    config = parse_config(
        f'<View>{FRAMES}<RectangleLabels name="r" toName="frames" smart="true"><Label value="o"/></RectangleLabels>'
        '<RectangleLabels name="s" toName="frames" smart="true" smartOnly="true"><Label value="b"/></RectangleLabels>'
        '<Video name="v" value="$video"/><Rectangle name="q" toName="v"/></View>'
    )
    assert [(control.kind, control.name) for control in config.drawing_controls()] == [("rectangle", "r")]
    with pytest.raises(SvacError, match="only rectangle 'r'"):
        config.mask_control()
    assert parse_config('<View><Video name="v" value="$video"/></View>').drawing_controls() == ()


def test_video_rectangles_are_an_overview_when_they_say_so() -> None:
    labels = '<Labels name="bl" toName="v"><Label value="dog"/><Label value="cat"/></Labels>'
    box = '<VideoRectangle name="box" toName="v" svac="boxes"/>'
    video = '<Video name="v" value="$video"/>'
    config = parse_config(f"<View>{video}{box}{labels}</View>")
    assert config.overview is not None
    assert config.overview == BoxTracks("box", "v", ("dog", "cat"), "bl", True)
    plain = parse_config(f"<View>{video}{box.replace(' svac=', ' other=')}{labels}</View>")
    assert plain.overview is None
    assert [boxes.name for boxes in plain.box_tracks] == ["box"]
    assert parse_config(f"<View>{video}{box}</View>").overview is None
