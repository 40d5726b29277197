"""Pickles of plain containers are read; anything else is refused before a word of it runs."""

from __future__ import annotations

import collections
import datetime
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.evaluation.truth import load_plain

PLAIN = {"0": [{"size": [4, 5], "counts": b"abc"}, None], "1": [{"size": [4, 5], "counts": "abc"}, None]}


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_containers(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "mask_dict.pkl"
    path.write_bytes(pickle.dumps(PLAIN, protocol))
    assert load_plain(path) == PLAIN


def test_an_evil_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "mask_dict.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"0": Evil(trace)}))
    with pytest.raises(SvacError, match=r"it asks for posix\.system") as caught:
        load_plain(path)
    assert "mask_dict.json" in caught.value.hint
    assert not trace.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3),
        np.int64(3),
        collections.OrderedDict(a=1),
        datetime.date(2026, 1, 1),
        {1, 2},
        (1, 2),
        1.5,
        bytearray(b"a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "mask_dict.pkl"
    path.write_bytes(pickle.dumps({"0": [[value]]}))
    with pytest.raises(SvacError, match=r"not a plain container|pickle of plain containers"):
        load_plain(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps(PLAIN)[:-4],
        b"cos\nsystem\n(S'true'\ntR.",  # protocol 0
        b"(ios\nsystem\nS'true'\n.",
        b"\x80\x02\x82\x01.",  # the extension registry
        b"Pname\n.",  # a persistent id
        b"\x80\x04r\xff\xff\xff\x7f.",  # a memo of gigabytes
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.",  # a text of exabytes
        b"\x80\x04N0.",
        b"\x80\x04)b.",
    ],
)
def test_damaged_and_hand_made_pickles(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mask_dict.pkl"
    path.write_bytes(content)
    with pytest.raises(SvacError, match=r"pickle of plain containers"):
        load_plain(path)


def test_containers_that_hold_themselves_or_each_other_often_end(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    bomb: list[Any] = [1]
    for _ in range(60):
        bomb = [bomb, bomb]
    path = tmp_path / "mask_dict.pkl"
    path.write_bytes(pickle.dumps([loop, bomb]))
    assert len(load_plain(path)) == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="cannot be read"):
        load_plain(tmp_path / "nosuch.pkl")
