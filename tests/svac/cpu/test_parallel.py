"""Workers that take frames of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from svac_backend.svac.cpu.parallel import Workers, all_threads, frame_workers, single_threads

CPU = torch.device("cpu")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 3])
def test_each_result_is_that_of_its_call_under_inference_mode(count: int) -> None:
    def slow_first(number: int) -> tuple[int, bool]:
        time.sleep(0.02 if number == 0 else 0)
        return number, torch.is_inference_mode_enabled()

    workers = Workers(count)
    waiting = [workers.start(slow_first, number) for number in range(7)]
    assert [wait() for wait in waiting] == [(number, True) for number in range(7)]
    workers.close()


def test_an_error_of_a_worker_reaches_the_caller() -> None:
    workers = Workers(2)
    good, bad = (workers.start(lambda number: 1 // number, number) for number in (1, 0))
    assert good() == 1
    with pytest.raises(ZeroDivisionError):
        bad()
    workers.close()


def test_a_pool_of_single_threads_leaves_other_threads_their_number(three_threads: None) -> None:
    pool = single_threads(2, "single")
    work = torch.ones(200, 200)

    def threads_after_work(_: int) -> int:
        work @ work  # a thread settles its number at its first work at the latest
        return torch.get_num_threads()

    assert set(pool.map(threads_after_work, range(6))) == {1}
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as other:
        assert other.submit(threads_after_work, 0).result() == 3
    pool.shutdown()


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
        waiting = [workers.start(torch.get_num_threads) for _ in range(6)]
        assert {wait() for wait in waiting} == {1}
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
