"""Prompts of tasks, and the data of new ones."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.tasks import (
    MAX_OBJECTS,
    build_task_data,
    kind_of,
    local_files_path,
    local_files_url,
    task_prompts,
    text_wishes,
)
from svac_backend.masks.tracks import ObjectPrompt

XML = """<View><TextArea name="prompt" toName="frames" smart="true"/>
<Image name="frames" valueList="$frames"/>
<BrushLabels name="mask" toName="frames"><Label value="object"/><Label value="car" prompt="the red car"/>
<Label value="a: b"/></BrushLabels><Video name="video" value="$clip" framerate="$rate"/></View>"""


@pytest.fixture(scope="module")
def config() -> LabelConfig:
    return parse_config(XML)


def text_area(*texts: Any, name: str = "prompt") -> dict[str, Any]:
    return {"type": "textarea", "from_name": name, "to_name": "frames", "value": {"text": list(texts)}}


def pairs(config: LabelConfig, data: dict[str, Any], context: Any = None) -> list[tuple[str, str]]:
    prompts = task_prompts(data, config, context, max_chars=50)
    assert [prompt.object_id for prompt in prompts] == [f"obj{n + 1}" for n in range(len(prompts))]
    return [(prompt.label, prompt.expression) for prompt in prompts]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("the dog", [("object", "the dog")]),
        ("  the \t dog ", [("object", "the dog")]),
        ("car: the blue one", [("car", "the blue one")]),
        ("CAR:the blue one", [("car", "the blue one")]),
        ("car", [("car", "car")]),
        ("at 10:30: the dog", [("object", "at 10:30: the dog")]),
        ("a: b: the letter", [("a: b", "the letter")]),
        ("the dog\n\ncar: the blue one\r\n", [("object", "the dog"), ("car", "the blue one")]),
        (["the dog", "the cat"], [("object", "the dog"), ("object", "the cat")]),
        (["the dog", "the  dog"], [("object", "the dog")]),
        ({"car": "the blue one"}, [("car", "the blue one")]),
        (
            {"Car": ["a", "b"], "object": "c\nd"},
            [("car", "a"), ("car", "b"), ("object", "c"), ("object", "d")],
        ),
        ({"object": "car: the blue one"}, [("object", "car: the blue one")]),
    ],
)
def test_forms_of_the_task_prompt(config: LabelConfig, prompt: Any, expected: list[tuple[str, str]]) -> None:
    assert pairs(config, {"prompt": prompt}) == expected


def test_objects_without_a_label_are_told_apart_by_those_that_say_nothing_else() -> None:
    xml = """<View><Image name="frames" valueList="$frames"/><BrushLabels name="mask" toName="frames">
      <Label value="object"/><Label value="object 2"/><Label value="car"/><Label value="object 3"/>
      </BrushLabels></View>"""
    config = parse_config(xml)
    control = config.mask_control()
    assert pairs(config, {}) == [("object", "object"), ("car", "car")]
    assert pairs(config, {"prompt": ["the dog", "car: x", "object: y", "the cat"]}) == [
        ("object 2", "the dog"),
        ("car", "x"),
        ("object", "y"),
        ("object 3", "the cat"),
    ]
    there = [ObjectPrompt("obj1", "object", "the dog"), ObjectPrompt("obj2", "car", "the cat")]
    typed = text_wishes(["the dog", "the cat", "a", "b"], control, max_chars=50, known=there)
    assert typed[:3] == [("object", "the dog"), ("object 2", "the cat"), ("object 3", "a")]
    assert typed[3][0] in control.colours  # more objects than colours
    assert [config.category(label) for label in control.labels] == ["object", "object", "car", "object"]


def test_labels_are_looked_for_when_the_task_says_nothing(config: LabelConfig) -> None:
    expected = [("object", "object"), ("car", "the red car"), ("a: b", "a: b")]
    assert pairs(config, {}) == expected
    assert pairs(config, {"prompt": None}) == expected


def test_interactive_text_goes_before_the_task(config: LabelConfig) -> None:
    data = {"prompt": "the dog"}
    assert pairs(config, data, {"result": [text_area("the cat")]}) == [("object", "the cat")]
    several = {"result": [text_area("the cat", "car: x"), text_area("y\nz")]}
    assert pairs(config, data, several) == [
        ("object", "the cat"),
        ("car", "x"),
        ("object", "y"),
        ("object", "z"),
    ]


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"result": []},
        {"result": [{"type": "keypointlabels", "from_name": "kp", "value": {"x": 1, "y": 2}}]},
        {"result": [text_area("a remark", name="notes")]},
    ],
)
def test_context_without_a_prompt_leaves_the_task_its_own(
    config: LabelConfig, context: dict[str, Any]
) -> None:
    assert pairs(config, {"prompt": "the dog"}, context) == [("object", "the dog")]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ([], "empty"),
        ({}, "empty"),
        (["the dog", " "], "empty"),
        ({"car": ""}, "prompt of 'car' is empty"),
        ({"car": []}, "prompt of 'car' is empty"),
        ({"car": [["x"]]}, "not text but list"),
        ("car: ", "prompt of 'car' is empty"),
        (7, "not text but int"),
        ([None], "not text but NoneType"),
        ({"car": {"x": "y"}}, "not text but dict"),
        ("x" * 51, "51 characters, more than 50"),
        ({"lorry": "the lorry"}, "label 'lorry'"),
        ([f"dog {n}" for n in range(MAX_OBJECTS + 1)], "more than 64"),
    ],
)
def test_bad_prompts_are_errors(config: LabelConfig, prompt: Any, message: str) -> None:
    with pytest.raises(SvacError, match=message):
        task_prompts({"prompt": prompt}, config, max_chars=50)


def test_unknown_label_names_those_that_exist(config: LabelConfig) -> None:
    with pytest.raises(SvacError) as caught:
        task_prompts({"prompt": {"lorry": "x"}}, config, max_chars=50)
    assert "'object', 'car', 'a: b'" in caught.value.hint


@pytest.mark.parametrize(
    "context", [{"result": [text_area(" ")]}, {"result": [text_area()]}, {"result": [text_area(None)]}]
)
def test_submitting_an_empty_text_is_an_error(config: LabelConfig, context: dict[str, Any]) -> None:
    with pytest.raises(SvacError, match="The submitted text"):
        task_prompts({"prompt": "the dog"}, config, context, max_chars=50)


@pytest.mark.parametrize("context", [{"result": "x"}, {"result": ["x"]}])
def test_malformed_context_is_an_error(config: LabelConfig, context: dict[str, Any]) -> None:
    with pytest.raises(SvacError, match="context is malformed"):
        task_prompts({}, config, context, max_chars=50)


def test_config_that_cannot_show_masks_is_an_error() -> None:
    with pytest.raises(SvacError, match="no <Image valueList>"):
        task_prompts({"prompt": "the dog"}, parse_config("<View/>"), max_chars=50)


@given(st.text(max_size=60))
def test_any_text_gives_clean_expressions_or_an_error(text: str) -> None:
    try:
        prompts = task_prompts({"prompt": text}, parse_config(XML), max_chars=50)
    except SvacError:
        return
    for prompt in prompts:
        assert prompt.expression == " ".join(prompt.expression.split()) != ""
        assert len(prompt.expression) <= 50


def test_task_data_uses_the_keys_of_the_config(config: LabelConfig) -> None:
    data = build_task_data(
        "/v.mp4", ["/0.jpg", "/1.jpg"], 29.97, {"car": "x"}, config=config, extra={"source": "cam"}
    )
    assert data == {
        "clip": "/v.mp4",
        "frames": ["/0.jpg", "/1.jpg"],
        "rate": 29.97,
        "prompt": {"car": "x"},
        "source": "cam",
    }


def test_task_data_without_frames_has_no_key_for_them() -> None:
    assert build_task_data("/v.mp4", [], 24.0) == {"video": "/v.mp4", "fps": 24.0}


@pytest.mark.parametrize(
    ("fps", "prompt"), [(0.0, "x"), (float("nan"), "x"), (24.0, " "), (24.0, []), (24.0, {})]
)
def test_task_data_refuses_nonsense(fps: float, prompt: Any) -> None:
    with pytest.raises(SvacError):
        build_task_data("/v.mp4", [], fps, prompt)


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1), min_size=1
    )
)
def test_local_files_addresses_lead_back_to_the_file(parts: list[str]) -> None:
    if any(part in (".", "..") for part in parts):
        return
    url = local_files_url(Path("/srv/files").joinpath(*parts), Path("/srv/files"))
    assert url.isascii()
    assert str(local_files_path(url)) == "/".join(parts)


@pytest.mark.parametrize("url", ["/data/upload/1/a.mp4", "https://x.org/data/a.mp4", "s3://b/k"])
def test_other_addresses_are_no_local_files(url: str) -> None:
    assert local_files_path(url) is None


@pytest.mark.parametrize(
    "query", ["", "?d=", "?d=../etc/passwd", "?d=a/..%2f..%2fetc", "?d=..%5C..%5Cx", "?d=a%00b"]
)
def test_local_files_addresses_cannot_leave_the_root(query: str) -> None:
    with pytest.raises(SvacError, match="names no file below the root"):
        local_files_path(f"http://ls:8080/data/local-files/{query}")


def test_file_outside_the_root_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="not below"):
        local_files_url(tmp_path / "a.mp4", tmp_path / "files")


@pytest.mark.parametrize("prompt", ["\udcff red", ["a", "\ud83d"], {"car": "\ud83d"}])
def test_bytes_that_are_no_text_are_refused(config: LabelConfig, prompt: Any) -> None:
    with pytest.raises(SvacError, match="not valid Unicode"):
        task_prompts({"prompt": prompt}, config, max_chars=50)


@pytest.mark.parametrize(
    ("typed", "label", "expression"),
    [
        ("each: the dogs", "dog", "each: the dogs"),
        ("Each :  the white dogs that jump", "dog", "each: the white dogs that jump"),
        ("each: dog: the ones at 12:30", "dog", "each: the ones at 12:30"),
        ("dog: each: the small ones", "dog", "each: the small ones"),
        ("each: each: the dogs", "dog", "each: the dogs"),
        ("each: the puppies", "cat", "each: the puppies"),
        ("each:12 is no word of ours", "cat", "each:12 is no word of ours"),
        ("each of the dogs", "cat", "each of the dogs"),
    ],
)
def test_each_asks_for_instances(typed: str, label: str, expression: str) -> None:
    config = parse_config(
        '<View><Image name="frames" valueList="$frames"/><BrushLabels name="m" toName="frames">'
        '<Label value="cat"/><Label value="dog"/></BrushLabels></View>'
    )
    wanted = [ObjectPrompt("obj1", label, expression)]
    assert task_prompts({"prompt": typed}, config, max_chars=100) == wanted
    if typed.startswith("each: the"):
        assert task_prompts({"prompt": {label: typed}}, config, max_chars=100) == wanted
    for empty in ("each:", "dog: each: ", "each: dog:"):
        with pytest.raises(SvacError, match="is empty"):
            task_prompts({"prompt": empty}, config, max_chars=100)


def test_what_one_of_several_things_is_called() -> None:
    said = {
        "the dogs": "dog",
        "all the white Dogs that jump": "dog",
        "the boxes on the left": "box",
        "people": "person",
        "every puppy": "puppy",
        "the ponies": "pony",
        "glass": "glass",
        "that one": "",
        "the": "",
    }
    assert {sentence: kind_of(sentence) for sentence in said} == said


def test_the_address_of_a_local_file_below_a_path(tmp_path: Path) -> None:
    file = tmp_path / "svac" / "a b.mp4"
    assert local_files_url(file, tmp_path) == "/data/local-files/?d=svac/a%20b.mp4"
    assert local_files_url(file, tmp_path, "http://ls:8080/") == "/data/local-files/?d=svac/a%20b.mp4"
    below = local_files_url(file, tmp_path, "https://host/label-studio/")
    assert below == "/label-studio/data/local-files/?d=svac/a%20b.mp4"
    assert local_files_path(below) == PurePosixPath("svac/a b.mp4")
