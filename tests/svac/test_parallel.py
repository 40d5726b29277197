"""Workers that take frames of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from svac_backend.svac.parallel import Workers, all_threads, frame_workers

CPU = torch.device("cpu")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_order_under_inference_mode(count: int) -> None:
    def slow_first(number: int) -> tuple[int, bool]:
        time.sleep(0.02 if number == 0 else 0)
        return number, torch.is_inference_mode_enabled()

    workers = Workers(count)
    expected = [(number, True) for number in range(7)]
    assert workers.map(slow_first, range(7)) == expected
    assert list(workers.ahead(slow_first, iter(range(7)))) == expected
    assert workers.start(slow_first, 5)() == (5, True)
    workers.close()


def test_no_more_is_made_ahead_than_there_are_workers() -> None:
    made: list[int] = []
    workers = Workers(2)
    results = workers.ahead(made.append, iter(range(100)))
    next(results)
    assert len(made) <= 3
    workers.close()


def test_an_error_of_a_worker_reaches_the_caller() -> None:
    workers = Workers(2)
    with pytest.raises(ZeroDivisionError):
        workers.map(lambda number: 1 // number, [1, 0])
    workers.close()


@pytest.mark.parametrize(("total", "count"), [(16, 2), (5, 3), (1, 4), (0, 2)])
def test_shares_cover_everything_once(total: int, count: int) -> None:
    shares = Workers(count).shares(total)
    assert [i for share in shares for i in share] == list(range(total))
    assert len(shares) <= count
    assert all(shares)


def test_operations_get_one_thread_and_later_all_of_them_again(three_threads: None) -> None:
    with frame_workers(CPU, independent=True) as workers:
        assert workers.count == 3
        assert torch.get_num_threads() == 1
        assert set(workers.map(lambda _: torch.get_num_threads(), range(6))) == {1}
        with all_threads(workers):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_two_users_at_once_leave_the_threads_as_they_were(three_threads: None) -> None:
    first = frame_workers(CPU, independent=True)
    second = frame_workers(CPU, independent=True)
    assert first.__enter__().count == 3
    assert second.__enter__().count == 3
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 1
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == 3


def test_frames_that_depend_on_each_other_are_worked_on_by_the_caller(three_threads: None) -> None:
    with frame_workers(CPU, independent=False) as workers:
        assert workers.start(threading.get_ident)() == threading.get_ident()
        assert torch.get_num_threads() == 3
