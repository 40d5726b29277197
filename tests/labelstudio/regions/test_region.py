"""What comes from outside is a region, or is refused in words before anything is made of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.regions.region import regions_of

WHOLE: dict[str, Any] = {
    "id": "a",
    "from_name": "mask",
    "to_name": "frames",
    "type": "brushlabels",
    "value": {"x": 1},
}
RELATION = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
NOT_TEXT: list[Any] = [["a"], {"a": 1}, 7, True]


@pytest.mark.parametrize(
    "broken",
    [
        *({**WHOLE, key: value} for key in ("id", "from_name", "to_name", "type") for value in NOT_TEXT),
        *({**WHOLE, "value": value} for value in (7, "x", ["x"])),
    ],
)
def test_what_is_no_region_is_refused_in_words(broken: Any) -> None:
    with pytest.raises(SvacError, match=r"A region has no (text|object) as its '\w+'\."):
        regions_of([WHOLE, broken])
    assert regions_of([WHOLE, broken], foreign=True) == [WHOLE]


@pytest.mark.parametrize("foreign", [False, True])
def test_what_a_region_lacks_is_let_pass(foreign: bool) -> None:
    read = partial(regions_of, foreign=foreign)
    assert read([WHOLE, RELATION, {"id": None, "value": None}]) == [
        WHOLE,
        RELATION,
        {"id": None, "value": None},
    ]
    assert read([7, None, "region", WHOLE]) == [WHOLE]
    assert read(None) == read({"id": "a"}) == read("text") == []
