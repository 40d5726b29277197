"""The truth of every layout equals the scenes' masks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, BenchmarkExpression, BenchmarkVideo, open_benchmark
from svac_backend.evaluation.truth import Target, open_truth, read_numbers
from tests.evaluation import layouts


def target(benchmark: Benchmark, video: int, expression: int) -> Target:
    truth = open_truth(benchmark)
    assert truth is not None
    chosen = benchmark.videos[video]
    return truth.target(chosen, chosen.expressions[expression])


def masks(found: Target) -> list[np.ndarray | None]:
    return [found.mask(i) for i in range(layouts.CONFIG.frames)]


def test_several_annotations_are_united(tmp_path: Path) -> None:
    benchmark = open_benchmark("mevis", layouts.mevis(tmp_path))
    for v, scene in enumerate(layouts.scenes().values()):
        for e in range(3):
            expected = scene.masks[scene.expressions[e].targets[0]]
            assert np.array_equal(masks(target(benchmark, v, e)), expected)
        assert np.array_equal(masks(target(benchmark, v, 3)), scene.masks[0] | scene.masks[1])


@pytest.mark.parametrize(("dataset", "split"), [("ref-davis17", "valid"), ("ref-youtube-vos", "train")])
@pytest.mark.parametrize("pickled", [False, True])
def test_objects_of_palette_pictures_and_counted_masks(
    tmp_path: Path, dataset: str, split: str, pickled: bool
) -> None:
    root = layouts.by_split(tmp_path, split, annotations=not pickled)
    if pickled:
        layouts.counted_masks(root, split)
    benchmark = open_benchmark(dataset, root, split)
    for v, scene in enumerate(layouts.scenes().values()):
        for e in range(2):
            expected = scene.masks[scene.expressions[e].targets[0]]
            assert np.array_equal(masks(target(benchmark, v, e)), expected)


def test_revos_has_a_foreground_and_expressions_that_mean_nothing(tmp_path: Path) -> None:
    benchmark = open_benchmark("revos", layouts.revos(tmp_path))
    truth = open_truth(benchmark)
    assert truth is not None
    for video, scene in zip(benchmark.videos, layouts.scenes().values(), strict=True):
        found = truth.foreground(video)
        assert found is not None
        assert np.array_equal(masks(found), scene.masks.any(axis=0))
        assert masks(truth.target(video, video.expressions[2])) == [None] * 4


def test_splits_that_a_server_scores_have_no_truth(tmp_path: Path) -> None:
    layouts.mevis(tmp_path, "valid")
    (tmp_path / "mevis" / "valid" / "mask_dict.json").unlink()
    assert open_truth(open_benchmark("mevis", tmp_path, "valid")) is None
    # YouTube-VOS has pictures of the first frames there.
    assert open_truth(open_benchmark("ref-youtube-vos", layouts.by_split(tmp_path, "valid"))) is None


def change(path: Path, edit: object) -> None:
    content = json.loads(path.read_text())
    edit(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "wrong"),
    [
        (lambda m: m.pop("0"), "has no masks 0"),
        (lambda m: m["0"].pop(), "4 frames, its masks in"),
        (lambda m: m["0"].__setitem__(1, "text"), "not COCO RLE"),
        (lambda m: m["0"].__setitem__(1, {"counts": "a"}), "not COCO RLE"),
        (lambda m: m["0"].__setitem__(1, {"size": [9, 9], "counts": "a"}), "size differs"),
    ],
)
def test_masks_that_do_not_fit(tmp_path: Path, edit: object, wrong: str) -> None:
    layouts.mevis(tmp_path)
    change(tmp_path / "mevis" / "valid_u" / "mask_dict.json", edit)
    benchmark = open_benchmark("mevis", tmp_path)
    two = 3  # the expression that means the objects 0 and 1
    with pytest.raises(SvacError, match=wrong):
        target(benchmark, 0, two)


def test_a_damaged_rle(tmp_path: Path) -> None:
    layouts.mevis(tmp_path)
    path = tmp_path / "mevis" / "valid_u" / "mask_dict.json"
    change(path, lambda m: [row.__setitem__(2, {"size": [48, 64], "counts": "zzz"}) for row in m.values()])
    with pytest.raises(SvacError, match="COCO RLE"):
        target(open_benchmark("mevis", tmp_path), 0, 0).mask(2)


def test_masks_that_are_no_dictionary(tmp_path: Path) -> None:
    root = layouts.by_split(tmp_path, "valid", annotations=False)
    (root / "valid" / "mask_dict.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(SvacError, match="not a dictionary"):
        open_truth(open_benchmark("ref-davis17", root))


def test_pictures_that_are_missing_damaged_or_coloured(tmp_path: Path) -> None:
    root = layouts.by_split(tmp_path, "valid")
    found = target(open_benchmark("ref-davis17", root), 0, 0)
    folder = root / "valid" / "Annotations" / "scene-0000001"
    (folder / "00000.png").unlink()
    (folder / "00005.png").write_bytes((folder / "00010.png").read_bytes()[:60])
    Image.new("RGB", (64, 48)).save(folder / "00010.png")
    for i, wrong in enumerate(("is missing", "is damaged", "no palette")):
        with pytest.raises(SvacError, match=wrong):
            found.mask(i)


def test_palette_pictures_need_object_numbers(tmp_path: Path) -> None:
    root = layouts.by_split(tmp_path, "valid")
    meta = root / "meta_expressions" / "valid" / "meta_expressions.json"
    change(meta, lambda m: m["videos"]["scene-0000001"]["expressions"]["0"].pop("obj_id"))
    with pytest.raises(SvacError, match="no obj_id"):
        target(open_benchmark("ref-davis17", root), 0, 0)


def test_the_numbers_not_the_colours_are_read(tmp_path: Path) -> None:
    layouts.palette_picture(next(iter(layouts.scenes().values())), 0).save(tmp_path / "a.png")
    assert set(np.unique(read_numbers(tmp_path / "a.png"))) <= {0, 1, 2, 3}


def test_white_on_black_is_object_1_and_16_bits_keep_every_number(tmp_path: Path) -> None:
    def video(name: str, pictures: list[np.ndarray]) -> Target:
        folder = tmp_path / "valid" / "Annotations" / name
        folder.mkdir(parents=True)
        for i, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(folder / f"{i}.png")
        found = BenchmarkVideo(name, tmp_path, tuple(str(i) for i in range(len(pictures))), ())
        truth = open_truth(Benchmark("ref-davis17", "valid", tmp_path / "valid", (found,)))
        assert truth is not None
        return truth.target(found, BenchmarkExpression("0", "the dog", (), (1,)))

    shape = np.zeros((8, 9), np.uint8)
    shape[2:4, 3:6] = 255
    assert video("white", [shape * 0, shape]).mask(1).sum() == 6  # type: ignore[union-attr]
    numbers = np.where(shape > 0, 255, 1).astype(np.uint8)
    assert video("void", [shape, numbers]).mask(0).sum() == 0  # type: ignore[union-attr]
    deep = np.array([[0, 1, 254, 255, 256, 300]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_numbers(tmp_path / "deep.png").tolist() == deep.tolist()
