"""Which version serves: promotions and rollbacks in any order, damage passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from svac_backend.errors import SvacError
from svac_backend.store.tables import PromotionRow, VersionRow
from svac_backend.store.versions import BASE, Version, VersionState, VersionStore
from tests.databases import OpenDatabase

NAME = "svac-3fa9c1d2"


def version(name: str, base: str = NAME) -> Version:
    return Version(name, base, sha256=name * 8, size=10, figures={"held_out": 61.5}, data={"corrections": 16})


@pytest.fixture
def store(open_database: OpenDatabase, tmp_path: Path) -> VersionStore:
    store = VersionStore(open_database(tmp_path))
    for name in ("aaaa1111", "bbbb2222", "cccc3333"):
        store.register(version(name))
    return store


def serving(store: VersionStore) -> str:
    found = store.serving(NAME)
    return found.id if found else BASE


def test_a_version_comes_back_as_it_was_registered(store: VersionStore) -> None:
    found = store.get("aaaa1111")
    assert found is not None
    assert (found.state, found.figures, found.data) == (
        VersionState.CANDIDATE,
        {"held_out": 61.5},
        {"corrections": 16},
    )
    assert found.name == "svac-3fa9c1d2-aaaa1111"
    assert store.register(version("aaaa1111")) == found  # once more changes nothing
    assert store.get("dddd4444") is None
    assert len(store.all()) == 3
    assert store.all(base="other") == []


def test_versions_are_found_by_the_beginning_of_their_id(store: VersionStore) -> None:
    store.register(version("aaaa9999"))
    assert store.find("b").id == "bbbb2222"
    assert store.find("svac-3fa9c1d2-cccc3333").id == "cccc3333"
    assert store.find("aaaa1111").id == "aaaa1111"
    for name, said in (("aaaa", "several"), ("x", "no version"), ("", "no version")):
        with pytest.raises(SvacError, match=said):
            store.find(name)


def test_promote_and_roll_back(store: VersionStore) -> None:
    assert serving(store) == BASE
    with pytest.raises(SvacError, match="nothing to roll back"):
        store.roll_back(NAME)
    for name in ("aaaa1111", "bbbb2222", "cccc3333"):
        assert store.promote(name, "better").state is VersionState.PROMOTED
        assert serving(store) == name
    assert store.roll_back(NAME).id == "bbbb2222"  # type: ignore[union-attr]
    assert store.roll_back(NAME).id == "aaaa1111"  # type: ignore[union-attr]
    assert store.roll_back(NAME) is None
    assert serving(store) == BASE


def test_roll_back_to_one_that_served(store: VersionStore) -> None:
    for name in ("aaaa1111", "bbbb2222", "cccc3333"):
        store.promote(name)
    assert store.roll_back(NAME, "aaaa1111").id == "aaaa1111"  # type: ignore[union-attr]
    store.promote("cccc3333")
    with pytest.raises(SvacError, match="did not serve"):
        store.roll_back(NAME, "bbbb2222")
    assert store.roll_back(NAME, BASE) is None
    assert serving(store) == BASE


def test_a_damaged_version_is_passed_over(store: VersionStore) -> None:
    for name in ("aaaa1111", "bbbb2222", "cccc3333"):
        store.promote(name)
    store.decide("cccc3333", VersionState.DAMAGED, "its weights are not those that were written")
    assert serving(store) == "bbbb2222"
    assert [one.id for one in store.passed_over(NAME)] == ["cccc3333"]
    store.decide("bbbb2222", VersionState.DAMAGED, "gone")
    assert serving(store) == "aaaa1111"
    with pytest.raises(SvacError, match="is damaged: gone"):
        store.promote("bbbb2222")
    assert store.roll_back(NAME) is None
    assert store.passed_over(NAME) == []


def test_what_serves_is_not_deleted(store: VersionStore) -> None:
    store.promote("aaaa1111")
    store.promote("bbbb2222")
    with pytest.raises(SvacError, match="serves"):
        store.delete("bbbb2222")
    store.delete("aaaa1111")
    assert store.get("aaaa1111") is None
    assert store.roll_back(NAME) is None  # to the base: the one before is gone
    with pytest.raises(SvacError, match="no version"):
        store.delete("aaaa1111")


def test_each_base_has_its_own(store: VersionStore) -> None:
    store.register(version("dddd4444", "sa2va-3fa9c1d2"))
    store.promote("dddd4444")
    assert serving(store) == BASE
    assert store.serving("sa2va-3fa9c1d2").id == "dddd4444"  # type: ignore[union-attr]


@given(st.lists(st.sampled_from(["aaaa1111", "bbbb2222", "cccc3333", "back"]), max_size=12))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_serves_is_the_top_of_a_stack(store: VersionStore, steps: list[str]) -> None:
    with store.database.write() as session:  # one database for all examples
        for table in (PromotionRow, VersionRow):
            session.execute(delete(table))
    stack: list[str] = []
    for step in steps:
        if step != "back":
            store.register(version(step))
            store.promote(step)
            if stack[-1:] != [step]:
                stack.append(step)
        elif stack:
            store.roll_back(NAME)
            stack.pop()
        assert serving(store) == (stack[-1] if stack else BASE)
