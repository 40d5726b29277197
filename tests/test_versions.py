"""Versions on disk: taken in, promoted only as judged, refused when damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.versions import Version, VersionState
from svac_backend.svac.files.adapters import ABOUT, WEIGHTS
from svac_backend.svac.files.weights import version_of
from svac_backend.versions import Registry
from tests.jobs.conftest import SmallLabelStudio, serve
from tests.learning.adapter_folders import adapter_folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, model="svac-tiny", data_dir=tmp_path / "data")


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    database = Database.from_settings(settings)
    yield Registry(settings, database)
    database.close()


@pytest.fixture
def publish(registry: Registry, tmp_path: Path) -> object:
    def made(content: bytes, promote: bool = True, parent: str = "") -> Version:
        folder = tmp_path / "runs" / content.decode()
        adapter_folder(folder, content)
        return registry.publish(
            folder,
            base=registry.base,
            parent=parent,
            promote=promote,
            reason="J&F rose.",
            figures={"new": 61.0},
        )

    return made


def test_a_better_version_serves(registry: Registry, publish: object, settings: Settings) -> None:
    assert registry.name() == registry.base == version_of(settings)
    version = publish(b"one")  # type: ignore[operator]
    assert (version.state, version.reason, version.parent) == (VersionState.PROMOTED, "J&F rose.", "")
    assert registry.serving(verify=True) == version
    assert registry.name() == f"{registry.base}-{version.id}" == version.name
    assert (registry.folder(version) / WEIGHTS).read_bytes() == b"one"
    assert registry.folder(version) == settings.data_dir / "versions" / version.id
    assert registry.problem() is None


def test_a_worse_version_is_kept(registry: Registry, publish: object) -> None:
    version = publish(b"one", promote=False)  # type: ignore[operator]
    assert version.state is VersionState.KEPT
    assert registry.name() == registry.base
    assert registry.promote(version.id[:4]).state is VersionState.PROMOTED  # a person may think otherwise
    assert registry.name() == version.name


def test_the_same_run_once_more_changes_nothing(registry: Registry, publish: object) -> None:
    first = publish(b"one")  # type: ignore[operator]
    registry.roll_back()
    assert publish(b"one") == first  # type: ignore[operator]
    assert registry.serving() is None


def test_what_was_compared_with_a_version_that_serves_no_more_is_not_promoted(
    registry: Registry, publish: object
) -> None:
    first = publish(b"one")  # type: ignore[operator]
    registry.roll_back()
    second = publish(b"two", parent=first.id)  # type: ignore[operator]
    assert second.state is VersionState.KEPT
    assert second.reason.startswith("Not promoted: another version serves by now")
    assert second.reason.endswith("J&F rose.")
    assert registry.serving() is None


@pytest.mark.parametrize("damage", ["changed", "shorter", "gone", "described anew"])
def test_a_damaged_version_is_refused_and_the_last_good_one_serves(
    registry: Registry, publish: object, damage: str
) -> None:
    good = publish(b"good")  # type: ignore[operator]
    bad = publish(b"bad one", parent=good.id)  # type: ignore[operator]
    assert registry.serving(verify=True) == bad
    weights = registry.folder(bad) / WEIGHTS
    if damage == "gone":
        weights.unlink()
    elif damage == "described anew":
        weights.unlink()
        (registry.folder(bad) / ABOUT).unlink()
        adapter_folder(registry.folder(bad), b"another")
    else:
        weights.write_bytes(b"bad 0ne" if damage == "changed" else b"bad")
    if damage in ("gone", "shorter"):
        assert registry.name() == good.name  # a glance is enough
    assert registry.serving(verify=True) == good
    assert registry.name() == good.name
    problem = registry.problem()
    assert problem is not None
    assert bad.name in problem
    assert good.name in problem
    with pytest.raises(SvacError):
        registry.promote(bad.id)


@pytest.fixture
def label_studio(settings: Settings) -> Iterator[SmallLabelStudio]:
    with closing(Database.from_settings(settings)) as database:
        for server in serve():
            ConnectionStore(database).put("38", server.url, "ab" * 20, "<View/>")
            yield server


@pytest.mark.parametrize("change", ["promote", "roll back", "publish", "publish again"])
def test_projects_follow_whatever_changes_what_serves(
    registry: Registry, publish: object, label_studio: SmallLabelStudio, tmp_path: Path, change: str
) -> None:
    label_studio.shown = first = registry.base
    if change == "publish":
        publish(b"one")  # type: ignore[operator]
    elif change == "publish again":  # the job was stopped before Label Studio knew
        publish(b"one")  # type: ignore[operator]
        label_studio.shown = first
        publish(b"one")  # type: ignore[operator]
    else:
        version = publish(b"one", promote=change == "roll back")  # type: ignore[operator]
        label_studio.shown = first = version.name if change == "roll back" else first
        told: list[str] = []
        if change == "promote":
            registry.promote(version.id, told.append)
        else:
            registry.roll_back(tell=told.append)
        assert told == ["Projects that show the newest from now on: 38."]
    assert label_studio.shown == "SVAC"


def test_a_project_that_shows_another_version_stays_and_label_studio_may_be_away(
    registry: Registry, publish: object, label_studio: SmallLabelStudio
) -> None:
    label_studio.shown = "chosen by a person"
    version = publish(b"one")  # type: ignore[operator]
    assert label_studio.shown == "chosen by a person"
    label_studio.shutdown()
    label_studio.server_close()
    told: list[str] = []
    registry.roll_back(tell=told.append)
    (sentence,) = told
    assert sentence.startswith(f"Some projects may still show {version.name}. ")
    assert sentence.endswith("Choose the model in their Settings > Annotation.")


def test_a_restored_file_can_be_promoted_again(registry: Registry, publish: object) -> None:
    version = publish(b"one")  # type: ignore[operator]
    weights = registry.folder(version) / WEIGHTS
    weights.write_bytes(b"0ne")
    assert registry.serving(verify=True) is None
    weights.write_bytes(b"one")
    assert registry.promote(version.id).state is VersionState.PROMOTED
    assert registry.serving(verify=True) is not None
    assert registry.problem() is None


def test_delete_takes_the_files_too(registry: Registry, publish: object) -> None:
    version = publish(b"one")  # type: ignore[operator]
    with pytest.raises(SvacError, match="serves"):
        registry.delete(version.id)
    assert registry.folder(version).is_dir()
    registry.roll_back()
    registry.delete(version.id)
    assert not registry.folder(version).exists()
    assert registry.store.all() == []


def test_another_way_to_run_the_model_has_versions_of_its_own(
    registry: Registry, publish: object, settings: Settings
) -> None:
    version = publish(b"one")  # type: ignore[operator]
    other = Registry(settings.model_copy(update={"preset": "sa2va"}), registry.store.database)
    assert other.name() == other.base
    assert registry.name() == version.name
