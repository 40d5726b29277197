"""Photographs and the videos made of them: parted by photograph, the same for the same seed, masks of what is seen."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from lab.train_tiny import pseudo_videos
from lab.train_tiny.photographs import Photograph, load_photographs, part_of
from lab.train_tiny.pseudo_videos import compose, make_pseudo_videos

BOX = [30.0, 20.0, 80.0, 20.0, 80.0, 70.0, 30.0, 70.0]


def write_photo(path: Path, seed: int, *, thing: tuple[int, int, int] = (0, 0, 250)) -> None:
    """Write a grey, noisy photograph of 120x100 with a thing of one colour (BGR) in `BOX`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(90, 160, (100, 120, 1)).repeat(3, 2).astype(np.uint8)
    image[20:71, 30:81] = thing
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images, annotations = [], []
    for number in range(30):
        name = f"{number:012d}.jpg"
        write_photo(tmp_path / "coco" / name, number)
        license_ = "CC BY-NC 2.0" if number == 7 else "CC BY 2.0"
        images.append({"id": number, "file_name": name, "width": 120, "height": 100, "license": license_})
        told = {"image_id": number, "category_id": 3, "segmentation": [BOX], "area": 2500.0, "iscrowd": 0}
        annotations += [told, told | {"area": 5.0}, told | {"iscrowd": 1}]
    categories = [{"id": 3, "name": "car"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(content))
    clothing = tmp_path / "clothing"
    for number in range(30):
        write_photo(clothing / "photos" / f"{number:04d}.jpg", number)
        tags = np.zeros((100, 120), np.uint8)
        tags[20:71, 30:81], tags[20:40, 30:81], tags[0, 0] = 2, 1, 1
        (clothing / "labels").mkdir(exist_ok=True)
        cv2.imwrite(str(clothing / "labels" / f"{number:04d}.png"), tags)
    (clothing / "labels.json").write_text(json.dumps({"0": "null", "1": "hat", "2": "coat", "3": "shoes"}))
    for number in range(30):
        write_photo(tmp_path / "cats" / "photos" / f"{number:04d}.jpg", number)
        (tmp_path / "cats" / "labels").mkdir(exist_ok=True)
        told = {"width": 120, "height": 100, "polygons": [BOX, [1.0, 1.0, 2.0, 2.0]]}
        (tmp_path / "cats" / "labels" / f"{number:04d}.json").write_text(json.dumps(told))
    return tmp_path


def test_photographs_are_of_one_part_and_of_licences_that_allow_it(folder: Path) -> None:
    train, validation = load_photographs(folder, "train"), load_photographs(folder, "validation")
    names = {photo.name for photo in train}
    assert names.isdisjoint(photo.name for photo in validation)
    assert len(train) + len(validation) == 89
    assert 3 <= len(validation) <= 20
    assert all(part_of(photo.name) == "train" for photo in train)
    assert f"coco/{7:012d}.jpg" not in names | {photo.name for photo in validation}


def test_regions_are_what_is_marked(folder: Path) -> None:
    found = {photo.name.split("/")[0]: photo for photo in load_photographs(folder, "train")}
    assert found["coco"].labels == ("car",)
    assert found["clothing"].labels == ("person", "hat", "coat")
    assert found["cats"].labels == ("cat",)
    for photo in found.values():
        image, masks = photo.read()
        assert image.shape == (100, 120, 3)
        assert masks.shape == (len(photo.labels), 100, 120)
        assert masks[0].sum() == pytest.approx(51 * 51, abs=2)
        assert image[masks[0]].mean(0) == pytest.approx([250, 0, 0], abs=12)  # red, in RGB
    masks = found["clothing"].read()[1]
    assert (masks[1] & masks[2]).sum() == 0
    assert (masks[1] | masks[2]).sum() == masks[0].sum()


def test_the_same_seed_makes_the_same_video(folder: Path) -> None:
    photos = load_photographs(folder, "train")
    one, again, other = (
        compose(np.random.default_rng(seed), photos, length=3).paint(64) for seed in (5, 5, 6)
    )
    assert np.array_equal(one[0], again[0])
    assert np.array_equal(one[1], again[1])
    assert not np.array_equal(one[0], other[0])


def test_masks_are_of_what_can_be_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [photo for photo in load_photographs(folder, "train") if photo.name.startswith("coco")]
    monkeypatch.setattr(pseudo_videos, "_smeared", lambda part, way: part)
    overlaps = seen = 0
    for seed in range(12):
        frames, masks = compose(np.random.default_rng(seed), photos, length=3).paint(96)
        for t in range(3):
            covered = masks[:, t].sum(0)
            overlaps += int((covered > 1).sum())
            inside = cv2.erode(masks[:, t].any(0).astype(np.uint8), np.ones((5, 5))) > 0
            ground = cv2.dilate(masks[:, t].any(0).astype(np.uint8), np.ones((5, 5))) == 0
            red = frames[:, :, :, 0].astype(int) - frames[:, :, :, 1]
            if inside.sum() > 50 and ground.sum() > 50:
                assert red[t][inside].mean() > 100
                seen += 1
    assert overlaps == 0  # things here have no parts
    assert seen > 15


def test_a_batch_shows_each_object_when_it_is_given(folder: Path) -> None:
    photos = load_photographs(folder, "train")
    batch = make_pseudo_videos(
        np.random.default_rng(2), photos, size=64, scenes=3, length=4, given=(0, 3), most=2
    )
    assert batch.pixels.shape == (12, 3, 64, 64)
    assert batch.masks.shape[1:] == (4, 64, 64)
    assert batch.target.shape[1:] == (4, 32, 32)
    assert batch.present[:, [0, 3]].amax(1).all()
    assert len(batch.masks) <= 6
    assert batch.frame[:, 0].remainder(4).eq(0).all()
    assert (batch.frame[:, 1:] - batch.frame[:, :-1] == 1).all()


def test_a_cut_out_has_an_edge_of_its_own() -> None:
    write = np.zeros((40, 40, 3), np.uint8)
    ok, content = cv2.imencode(".jpg", write)
    assert ok
    ring = np.array([[5, 5], [30, 5], [30, 30], [5, 30]], np.int32)
    photo = Photograph("coco/x.jpg", content.tobytes(), ("car",), ((ring,),))
    cut = pseudo_videos._cut_out(np.random.default_rng(0), photo)
    assert cut is not None
    assert cut.image.shape[:2] == cut.alpha.shape == cut.regions.shape[1:] == (26, 26)
    assert cut.alpha.max() == pytest.approx(1)
    assert cut.regions[0].all()
    assert cut.labels == ("car",)
