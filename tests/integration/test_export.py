"""Long videos in windows, export, and the way back, against a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from svac_backend import pipeline
from svac_backend.cli import export
from svac_backend.cli.import_masks import import_masks
from svac_backend.cli.import_videos import import_videos
from svac_backend.cli.projects import Destination
from svac_backend.datasets.layouts import DataSet
from svac_backend.datasets.reading import Choice
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.datasets.windows import Windowing
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.written import to_prediction, tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import Window, window_of
from svac_backend.masks.tracks import Track
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from tests.cli.videos import FPS, HEIGHT, WIDTH, write_video
from tests.datasets.made import rectangle

FRAMES, PROMPT = 30, "the red square"
WINDOWS = [Window(0, 11), Window(9, 11), Window(18, 12)]


@pytest.fixture(scope="module")
def client(label_studio: LabelStudioServer) -> LabelStudioClient:
    return label_studio.client()


@pytest.fixture
def settings(label_studio: LabelStudioServer, random_model: Path, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        model=str(random_model),
        data_dir=tmp_path / "data",
        label_studio_url=label_studio.url,
        label_studio_api_key=SecretStr(label_studio.token),
        label_studio_files_root=label_studio.files_root,
        min_area_px=1,
    )


@pytest.fixture
def title(client: LabelStudioClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """A title of the test's own; projects whose titles start with it are deleted at the end."""
    name = request.node.name[:40]
    yield name
    for project in client.list_projects():
        if str(project["title"]).startswith(name):
            client.delete_project(int(project["id"]))


def project_of(client: LabelStudioClient, title: str) -> int:
    (project,) = [int(one["id"]) for one in client.list_projects() if one["title"] == title]
    return project


def do_import(settings: Settings, video: Path, title: str, *, predict: bool, **options: Any) -> None:
    windowing = Windowing(**{"size": 12, "overlap": 2, **options})
    import_videos(settings, [video], [PROMPT], Destination(create=title), windowing, predict=predict)


def tasks_of(client: LabelStudioClient, project: int) -> list[dict[str, Any]]:
    return sorted(client.list_tasks(project), key=lambda task: task["id"])


def track() -> Track:
    """A square that is away on two frames; one of them is shared by two windows."""
    masks = {i: rectangle(12, i, 16, 16) for i in range(FRAMES) if i not in (10, 24)}
    return Track("obj1", "object", PROMPT, masks, dict.fromkeys(range(FRAMES), 0.5))


def exported(settings: Settings, out: Path, project: int, **options: Any) -> VideoTracks:
    source = export.ExportSource(Choice(**options), project)
    export.run(settings, source, DataSet(out, "mevis"))
    (video,) = DataSet(out, "mevis", "train").read()
    return video


def test_windows_predictions_annotations_export_and_back(
    settings: Settings,
    client: LabelStudioClient,
    title: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    do_import(settings, write_video(tmp_path / "clip.mp4", frames=FRAMES), title, predict=False)
    project = project_of(client, title)
    tasks = tasks_of(client, project)
    assert [window_of(task["data"]) for task in tasks] == WINDOWS
    assert len({task["data"]["video"] for task in tasks}) == 1
    assert tasks[0]["data"]["frames"][9:] == tasks[1]["data"]["frames"][:2], "frames are shared"
    folder = next((settings.label_studio_files_root / "svac" / str(project)).glob("clip-*"))  # type: ignore[operator]
    assert len(list(folder.glob("*.jpg"))) == FRAMES
    config = parse_config(client.get_project(project)["label_config"])
    options = RegionOptions(min_area_px=1)
    for task, window in zip(tasks, WINDOWS, strict=True):
        results = tracks_to_results([track()], config.mask_control(), Canvas(WIDTH, HEIGHT, window), options)
        client.create_prediction(task["id"], to_prediction(results, "v1"))

    found = exported(settings, tmp_path / "predictions", project, source="predictions")
    assert (found.name, found.frames, found.fps) == ("clip", tuple(range(FRAMES)), FPS)
    assert (found.tracks[0].expression, found.tracks[0].masks) == (PROMPT, track().masks)
    assert found.pictures is not None
    assert len(list(found.pictures.glob("*.jpg"))) == FRAMES

    # A person submits the first and the last window, having painted where the square was missing.
    with pytest.raises(SvacError, match="no annotations"):
        exported(settings, tmp_path / "annotations", project)
    painted = track()
    painted.masks[10] = rectangle(0, 0, 9, 9)
    for place in (0, 2):
        canvas = Canvas(WIDTH, HEIGHT, WINDOWS[place])
        results = tracks_to_results([painted], config.mask_control(), canvas, options)
        client.create_annotation(tasks[place]["id"], results)
    found = exported(settings, tmp_path / "annotations", project)
    assert found.frames == (*range(11), *range(18, 30))
    assert found.tracks[0].masks == {i: rle for i, rle in painted.masks.items() if i in found.frames}
    assert f"1 of its 3 tasks have no annotation (task {tasks[1]['id']})" in capsys.readouterr().err

    # And back, as annotations of a project of its own.
    again = f"{title} again"
    back = Windowing(12, 2)
    masks = tmp_path / "predictions"
    for _ in range(2):  # the second time all is in
        data_set = DataSet(masks, "mevis")
        import_masks(settings, data_set, [], Destination(create=again), back, become="annotations")
    assert "already in the project" in capsys.readouterr().err
    number = project_of(client, again)
    assert [window_of(task["data"]) for task in tasks_of(client, number)] == WINDOWS
    assert all(len(client.list_annotations(task["id"])) == 1 for task in tasks_of(client, number))
    whole = exported(settings, tmp_path / "back", number)
    assert (whole.name, whole.frames) == ("clip", tuple(range(FRAMES)))
    assert [replace(one, scores={}) for one in whole.tracks] == [replace(track(), scores={})]


def test_a_long_video_is_segmented_once_and_answered_by_windows(
    settings: Settings,
    client: LabelStudioClient,
    title: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = pipeline.prelabel, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(pipeline, "prelabel", counted)
    video = write_video(tmp_path / "clip.mp4", frames=FRAMES)
    do_import(settings, video, title, predict=True)
    do_import(settings, video, title, predict=True)
    assert len(calls) == 1
    project = project_of(client, title)
    tasks = tasks_of(client, project)
    assert len(tasks) == 3
    about = client.get_project(project)
    config = parse_config(about["label_config"])
    backend = create_app(settings).test_client()
    for task, window in zip(tasks, WINDOWS, strict=True):
        (prediction,) = client.list_predictions(task["id"])
        validate_results(prediction["result"], config, frame_count=window.count, video_frames=FRAMES)
        assert prediction["result"], "random weights find something everywhere"
        body = {
            "tasks": [{"id": task["id"], "data": task["data"]}],
            "project": f"{project}.1795331614",
            "label_config": about["label_config"],
            "params": {"context": None},
        }
        (answer,) = backend.post("/predict", json=body).get_json()["results"]
        assert answer["result"] == prediction["result"], "/predict answers from the cache"
    with pytest.raises(SvacError, match="with other windows") as caught:
        do_import(settings, video, title, predict=True, size=0)
    assert "--window, --overlap" in caught.value.hint
    assert len(tasks_of(client, project)) == 3


def test_polygons_where_a_task_is_long(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "long.mp4", frames=101)
    for name, size, kind, count in (("whole", 0, "polygon", 1), ("split", 100, "brush", 2)):
        do_import(settings, video, f"{title} {name}", predict=False, size=size, overlap=None, stride=1)
        project = project_of(client, f"{title} {name}")
        assert parse_config(client.get_project(project)["label_config"]).mask_control().kind == kind
        assert len(tasks_of(client, project)) == count
    do_import(settings, video, f"{title} steps", predict=False, size=100, stride=10)
    (task,) = tasks_of(client, project_of(client, f"{title} steps"))
    assert task["data"]["svac_window"] == {"start": 0, "count": 11, "stride": 10}
    assert [url[-9:] for url in task["data"]["frames"]][:2] == ["00000.jpg", "00010.jpg"]
