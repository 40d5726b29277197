"""`svac-backend versions` over a real registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from svac_backend.cli import versions
from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.versions import Version, VersionState
from svac_backend.svac.files.adapters import WEIGHTS
from svac_backend.versions import Registry
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
def two(registry: Registry, tmp_path: Path) -> tuple[Version, Version]:
    """Two versions, the second trained on from the first; both were promoted."""
    made: list[Version] = []
    for content, figures in (
        (b"one", {"held_out_before": 21.04, "held_out_after": 66.0}),
        (b"two", {"held_out_before": 66.0, "held_out_after": 70.55, "chance": None}),
    ):
        adapter_folder(tmp_path / content.decode(), content)
        made.append(
            registry.publish(
                tmp_path / content.decode(),
                base=registry.base,
                parent=made[0].id if made else "",
                promote=True,
                reason="J&F rose.",
                figures=figures,
                data={"corrections": 16 + len(made), "expressions": ["the zorbo"]},
            )
        )
    return made[0], made[1]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said meanwhile, and the answer."""
    found = capsys.readouterr()
    return [re.sub(r" {2,}", "  ", line).strip() for line in (found.err + found.out).splitlines()]


def test_list(
    settings: Settings, registry: Registry, two: tuple[Version, Version], capsys: pytest.CaptureFixture[str]
) -> None:
    one, second = two
    versions.run_list(settings)
    found = lines(capsys)
    assert found[0] == f"Versions of {registry.base}"
    (star,) = [line for line in found if line.startswith("*")]
    assert star.startswith(f"*  {second.id}  promoted  66.0 to 70.5")
    assert any(line.startswith(f"{one.id}  promoted  21.0 to 66.0") for line in found)
    assert "base" in found

    (registry.folder(second) / WEIGHTS).write_bytes(b"tw0")
    versions.run_list(settings)
    found = lines(capsys)
    assert next(line for line in found if line.startswith("*")).startswith(f"*  {one.id}")
    assert any(line.startswith(f"{second.id}  damaged") for line in found)
    assert any("does not serve" in line for line in found)


def test_promote_and_roll_back(
    settings: Settings, registry: Registry, two: tuple[Version, Version], capsys: pytest.CaptureFixture[str]
) -> None:
    versions.run_roll_back(settings, None)
    assert lines(capsys)[0].startswith(f"{two[0].name} serves again.")
    versions.run_promote(settings, two[1].id[:5])
    assert registry.name() == two[1].name
    versions.run_roll_back(settings, "base")
    assert registry.name() == registry.base
    with pytest.raises(SvacError, match="nothing to roll back"):
        versions.run_roll_back(settings, None)
    versions.run_promote(settings, two[0].id)
    versions.run_promote(settings, two[1].id)
    versions.run_roll_back(settings, two[0].name)
    assert registry.name() == two[0].name


def test_a_version_that_was_not_good_enough_is_promoted_only_with_a_yes(
    registry: Registry,
    settings: Settings,
    two: tuple[Version, Version],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two_ = two
    registry.store.decide(one.id, VersionState.KEPT, "It lost 3.0 points.")
    monkeypatch.setattr("typer.confirm", lambda _: False)
    versions.run_promote(settings, one.id)
    assert "was not good enough. It lost 3.0 points." in " ".join(lines(capsys))
    assert registry.name() == two_.name
    versions.run_promote(settings, one.id, yes=True)
    assert registry.name() == one.name


def test_a_version_of_another_model_is_not_promoted(settings: Settings, two: tuple[Version, Version]) -> None:
    other = settings.model_copy(update={"preset": "sa2va"})
    with pytest.raises(SvacError, match="another model"):
        versions.run_promote(other, two[0].id)


def test_compare_with_the_one_it_came_from(
    settings: Settings, two: tuple[Version, Version], capsys: pytest.CaptureFixture[str]
) -> None:
    versions.run_compare(settings, two[1].id, None)
    found = lines(capsys)
    assert found[0] == f"{two[1].id}  {two[0].id}"
    assert "held out after  70.5  66.0" in found
    assert f"trained on from  {two[0].id}  base" in found
    assert "corrections  17  16" in found
    assert "expressions  the zorbo  the zorbo" in found
    assert not any("may differ" in line for line in found)
    versions.run_compare(settings, two[0].id, None)
    assert lines(capsys)[0] == f"{two[0].id}  base"


def test_delete(
    settings: Settings, registry: Registry, two: tuple[Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.confirm", lambda _: False)
    versions.run_delete(settings, two[0].id)
    assert len(registry.store.all()) == 2
    with pytest.raises(SvacError, match="serves"):
        versions.run_delete(settings, two[1].id, yes=True)
    versions.run_delete(settings, two[0].id, yes=True)
    assert [one.id for one in registry.store.all()] == [two[1].id]
    assert not registry.folder(two[0]).exists()
