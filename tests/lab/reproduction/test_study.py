"""The study itself, on the smallest model: what is trained, what each frame is decoded with, resuming, the report."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from svac_backend.errors import SvacError
from svac_backend.svac.model import Svac

pytestmark = pytest.mark.slow

LENGTH = 12
CLAIMS = ("frames", "tokens", "csa")


def small_settings(**changes: Any) -> Any:
    from lab.reproduction.adaptation import Adaptation
    from lab.reproduction.plan import StudySettings

    adaptation = Adaptation(steps=changes.pop("steps", 1), scenes=1, sentences=2, frames=2)
    fields = {"scenes": 2, "sentences": 3, "scored": 4, "length": LENGTH, "limit": 30}
    return StudySettings(model="small", adaptation=adaptation, **{**fields, **changes})


def ignore(_text: str) -> None:
    pass


def test_every_way_shows_as_many_tokens_as_it_says(small_model: Svac) -> None:
    from lab.reproduction.scenes import look
    from lab.reproduction.seeing import Viewer
    from lab.reproduction.variants import variants_of

    from svac_backend.synthetic.rich.scene import make_rich_scene

    for claim in CLAIMS:
        for variant in variants_of(claim, small_model.config, length=LENGTH):
            frames = make_rich_scene(3, look(small_model, LENGTH, "validation"), variant.seen(LENGTH)).frames
            viewer = Viewer(small_model, variant)
            with torch.inference_mode():
                tokens = viewer.tokens(viewer.pixels(frames))
            assert tokens.shape == (variant.images, variant.tokens_per_image, 32)
            prompt = viewer.prompts(["the object"])[0]
            assert int((prompt.prefix == viewer.builder.context_id).sum()) == variant.tokens
            assert len(prompt.seg) == variant.segs


def test_each_frame_is_decoded_with_its_embedding(small_model: Svac) -> None:
    from lab.reproduction.seeing import Viewer
    from lab.reproduction.variants import variants_of

    many, one = variants_of("csa", small_model.config, length=LENGTH)
    seg = torch.tensor([[[10.0], [11.0]], [[20.0], [21.0]]])
    frames = (0, 5, 6, 11)
    owned = Viewer(small_model, many).owned(seg, frames, LENGTH)
    assert owned[..., 0].tolist() == [[10, 10, 11, 11], [20, 20, 21, 21]]
    owned = Viewer(small_model, one).owned(seg[:, :1], frames, LENGTH)
    assert owned[..., 0].tolist() == [[10] * 4, [20] * 4]


def test_scoring_is_what_the_model_does_itself(small_model: Svac) -> None:
    """With the frames that the package chooses, the model's own way gives the package's own masks."""
    from lab.reproduction.evaluation import _masks
    from lab.reproduction.scenes import scored_scenes
    from lab.reproduction.seeing import Viewer
    from lab.reproduction.variants import own_astc

    from svac_backend.video.reader import ArrayVideo

    # Of a video with as many frames as the MLLM sees, the middles of equal parts are all frames.
    own = own_astc(small_model.config)
    scene = scored_scenes(small_model, seed=0, count=1, length=own.frames, scored=own.frames, sentences=3)[0]
    video = ArrayVideo(scene.frames(range(own.frames)))
    said = [expression.text for expression in scene.expressions]
    expected = np.stack([frame.masks for frame in small_model.segment(video, said)], axis=1)
    viewer = Viewer(small_model, own)
    seg = viewer.embeddings(scene.frames(own.seen(own.frames)), said)
    found = _masks(small_model, scene, viewer.owned(seg, scene.scored, own.frames)).numpy()
    assert np.array_equal(found, expected)
    assert found.any()
    assert not found.all()


def test_lessons_are_the_same_for_all_variants(small_model: Svac) -> None:
    from lab.reproduction.scenes import lesson, look

    config = look(small_model, LENGTH, "train")
    made = []
    for seen in ((6,), (1, 3, 5, 7, 9, 11)):
        rng = np.random.default_rng(5)
        made.append([lesson(config, rng, seen, frames=2, sentences=3) for _ in range(3)])
        assert [len(one.frames) for one in made[-1]] == [len(seen)] * 3
    for few, many in zip(*made, strict=True):
        assert few.expressions == many.expressions
        assert few.taught == many.taught
        assert torch.equal(few.pixels, many.pixels)
        assert torch.equal(few.target, many.target)
    assert made[0][0].expressions != made[0][1].expressions


def test_shared_images_teach_as_one_sequence_each(small_model: Svac) -> None:
    from lab.reproduction.adaptation import Trainee, answers
    from lab.reproduction.seeing import Viewer
    from lab.reproduction.variants import own_astc

    Trainee(small_model)
    mllm, own = small_model.mllm, own_astc(small_model.config)
    viewer = Viewer(small_model, own)
    prompts = viewer.prompts(["the red thing", "what moves to the left"])
    pixels = torch.randn(own.images, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    gradients = []
    for shared in (True, False):
        mllm.zero_grad(set_to_none=True)
        visual = viewer.tokens(pixels)
        if shared:
            seg, told = answers(mllm, visual, prompts, viewer.builder.context_id)
        else:
            rows, losses = [], []
            for prompt in prompts:
                ids = torch.cat([prompt.prefix, prompt.suffix])
                embeds = mllm.embed(ids, visual.flatten(0, 1), viewer.builder.context_id)[None]
                states = mllm.language_model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state[0]
                rows.append(mllm.project(states[prompt.seg + len(prompt.prefix)]))
                start = len(prompt.prefix) + prompt.answer_start
                logits = mllm.language_model.lm_head(states[start - 1 : -1])
                losses.append(torch.nn.functional.cross_entropy(logits, ids[start:]))
            seg, told = torch.stack(rows), torch.stack(losses).mean()
        (seg.square().sum() + told).backward()
        gradients.append({name: p.grad.clone() for name, p in mllm.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any("mlp1" in name for name in gradients[0])
    assert not any("vision_model" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=2e-4, rtol=2e-3)


def test_adapting_changes_only_what_may_change_and_can_be_undone(small_model: Svac, tmp_path: Path) -> None:
    from lab.reproduction.adaptation import Adaptation, Trainee, adapt
    from lab.reproduction.variants import own_astc

    before = {name: value.clone() for name, value in small_model.state_dict().items()}
    trainee = Trainee(small_model)
    options = Adaptation(steps=2, lr=1e-2, scenes=1, sentences=2, frames=2)
    own = own_astc(small_model.config)

    def trained() -> dict[str, torch.Tensor]:
        adapt(trainee, own, options, seed=4, length=LENGTH, log=tmp_path / "curves.jsonl", name="test")
        return {name: value.clone() for name, value in small_model.state_dict().items()}

    first, again = trained(), trained()
    changed = {name for name in before if not torch.equal(before[name], first[name])}
    assert {name.split(".")[1] for name in changed} == {"language_model", "mlp1", "text_hidden_fcs"}
    assert all(torch.equal(first[name], again[name]) for name in before)
    trainee.reset()
    assert all(torch.equal(before[name], value) for name, value in small_model.state_dict().items())


def test_absent_things_count_as_the_benchmarks_count_them(small_model: Svac) -> None:
    from lab.reproduction.evaluation import evaluate
    from lab.reproduction.scenes import scored_scenes
    from lab.reproduction.variants import own_astc

    with torch.no_grad():  # an object score that is never positive: every mask is empty
        for parameter in small_model.sam.sam_mask_decoder.pred_obj_score_head.parameters():
            parameter.zero_()
        small_model.sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-9)
    scenes = scored_scenes(small_model, seed=0, count=3, length=LENGTH, scored=4, sentences=20)
    scores = evaluate(small_model, own_astc(small_model.config), scenes)
    absent = [score for score in scores if score.kind == "absent"]
    assert absent
    assert {score.j_and_f for score in absent} == {100.0}
    assert {score.speed for score in absent} == {None}
    seen = [s.j_and_f for s in scores if s.kind in ("color", "category") and s.speed is not None]
    assert min(seen) == 0.0


def test_speed_is_that_in_the_frame(small_model: Svac) -> None:
    from lab.reproduction.scenes import look, speeds_of

    from svac_backend.synthetic.rich.scene import describe

    for seed in range(40):
        scene, _ = describe(seed, look(small_model, 50, "validation"), words=False)
        inside = scene.inside().min(axis=1) > 0.99
        if inside.any():
            break
    way = np.linalg.norm(np.diff(scene.image_xy(), axis=1), axis=-1).sum(axis=1)
    np.testing.assert_allclose(speeds_of(scene)[inside], way[inside], rtol=1e-6, atol=1e-9)


def test_a_study_is_run_once_and_resumed(
    small_model: Svac, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from lab.reproduction.results import read
    from lab.reproduction.study import Study

    settings, file = small_settings(), tmp_path / "results.jsonl"
    before = {name: value.clone() for name, value in small_model.state_dict().items()}
    Study(small_model, settings, tmp_path, ignore).run(["tokens"], [0, 1])
    first = read(file)
    assert [(line["variant"], line["seed"]) for line in first] == [
        (name, seed) for seed in (0, 1) for name in ("astc", "sparse", "pool", "merge")
    ]
    assert all(torch.equal(before[name], value) for name, value in small_model.state_dict().items())
    assert all(len(line["scores"]) == 6 for line in first)

    # Cut off in the middle of the last line, as by a crash.
    text = file.read_text()
    file.write_text(text[: len(text) - 200])
    said: list[str] = []
    Study(small_model, settings, tmp_path, said.append).run(["tokens"], [0, 1])
    assert said[0] == "8 runs, 7 of them are there."
    again = read(file)
    assert [line["scores"] for line in again] == [line["scores"] for line in first]
    assert file.read_text().count("\n") == 8

    # What another claim has already found is taken over.
    said.clear()
    Study(small_model, settings, tmp_path, said.append).run(["csa"], [0])
    lines = {line["variant"]: line for line in read(file) if line["claim"] == "csa"}
    assert lines.keys() == {"one", "per-clip"}
    assert lines["per-clip"]["scores"] == first[0]["scores"]
    assert lines["per-clip"]["seconds"] == first[0]["seconds"]
    assert lines["one"]["segs"] == 1
    capfd.readouterr()


def test_other_settings_do_not_mix(small_model: Svac, tmp_path: Path) -> None:
    from lab.reproduction.results import Results

    settings = small_settings()
    Results(tmp_path, settings.as_json()).add(
        {"claim": "csa", "variant": "one", "seed": 0, "identity": [], "scores": []}
    )
    assert len(Results(tmp_path, settings.as_json()).lines) == 1
    with pytest.raises(SvacError, match="scenes=2, not 9"):
        Results(tmp_path, small_settings(scenes=9).as_json())
    with pytest.raises(SvacError, match="adaptation"):
        Results(tmp_path, small_settings(steps=7).as_json())


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    from lab.reproduction.results import Results

    (tmp_path / "results.jsonl").write_text('{"claim": "csa"}\n')
    with pytest.raises(SvacError, match="Line 1"):
        Results(tmp_path)


def test_memory_of_work_is_found() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak of memory")
    # In a process of its own: here, memory that other tests have freed may be used again.
    code = (
        "import torch; from lab.reproduction.cost import peak_mb; "
        "print(peak_mb(torch.device('cpu'), lambda: torch.ones(24 * 2**18).sum()))"
    )
    scripts = Path(__file__).parents[3] / "scripts"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=scripts, capture_output=True, text=True, check=True)
    assert 20 < float(done.stdout) < 40


def test_scenes_are_of_the_validation_seeds_only(small_model: Svac) -> None:
    from lab.reproduction.scenes import scored_scenes

    with pytest.raises(SvacError):
        scored_scenes(small_model, seed=15, count=1, length=LENGTH, scored=2, sentences=1)
    with pytest.raises(SvacError):
        scored_scenes(small_model, seed=0, count=201, length=LENGTH, scored=2, sentences=1)


def test_the_script_runs_from_end_to_end(
    small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module("reproduce")
    out, document = tmp_path / "out", tmp_path / "reproduction.md"
    document.write_text(
        "# Kept\n\n<!-- results: written by scripts/reproduce.py --draw -->\nold\n<!-- end of results -->\n\nkept\n"
    )

    def run(arguments: str) -> list[str]:
        script.app(["--out", str(out), *arguments.split()], standalone_mode=False)
        return capsys.readouterr().out.splitlines()

    small = (
        f"--model {small_folder} --threads 1 --scenes 1 --adapt 1 --length 12 --scored 3 --adapt-tokens 30"
    )
    said = run(f"{small} --seeds 0")
    # 3 numbers of full frames and ASTC, 3 ways at its tokens, one [SEG]; what is in two claims is run once.
    assert said[0] == "8 runs, 0 of them are there."
    lines = [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]
    assert Counter(line["claim"] for line in lines) == {"frames": 4, "tokens": 4, "csa": 2}
    assert [x["weights_of"] for x in lines if x["variant"] == "full-10"] == ["full-5"]
    assert run(f"{small} --seeds 0")[0] == "8 runs, 8 of them are there."

    drawn = run(f"--draw --into {document}")
    assert f"wrote {document}" in "".join(drawn)
    text = document.read_text()
    assert text.startswith("# Kept")
    assert text.endswith("kept\n")
    assert "old" not in text
    for claim in CLAIMS:
        assert f"(images/reproduction-{claim}.svg)" in text
        root = ElementTree.parse(tmp_path / "images" / f"reproduction-{claim}.svg").getroot()
        assert root.tag.endswith("svg")
    assert "| 10 full frames * |" in text

    with pytest.raises(SvacError, match="no claim 'speed'"):
        run("--claims speed")
    with pytest.raises(SvacError, match="no seeds"):
        run("--seeds 0,x")
