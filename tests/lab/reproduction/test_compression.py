"""Pooling and merging of visual tokens, against plain ways to do the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from svac_backend.errors import SvacError


def random_tokens(images: int, count: int, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(images, count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 5), (8, 8)])
def test_pooling_is_adaptive_average_pooling(grid: tuple[int, int]) -> None:
    from lab.reproduction.compression import pool_tokens

    tokens = random_tokens(3, 64)
    found = pool_tokens(tokens, grid)
    for n in range(3):
        for channel in range(5):
            plain = F.adaptive_avg_pool2d(tokens[n, :, channel].view(1, 8, 8), grid)[0].flatten()
            torch.testing.assert_close(found[n, :, channel], plain)
    assert found.shape == (3, grid[0] * grid[1], 5)


def test_tokens_of_no_square_are_not_pooled() -> None:
    from lab.reproduction.compression import pool_tokens

    with pytest.raises(SvacError):
        pool_tokens(random_tokens(1, 12), (2, 2))
    with pytest.raises(SvacError):
        pool_tokens(random_tokens(1, 9), (2, 4))


def plain_round(tokens: list[Tensor], sizes: list[float], pairs: int) -> tuple[list[Tensor], list[float]]:
    """One round of ToMe on one image, with loops."""
    ways = []
    for a in range(0, len(tokens), 2):
        alike = [
            (float(F.cosine_similarity(tokens[a], tokens[b], dim=0)), b) for b in range(1, len(tokens), 2)
        ]
        best = max(alike)
        ways.append((best[0], a, best[1]))
    groups = {k: [k] for k in range(len(tokens))}
    for _, a, b in sorted(ways, reverse=True)[:pairs]:
        groups[b].append(a)
        del groups[a]
    merged, left = [], []
    for members in groups.values():
        left.append(sum(sizes[k] for k in members))
        merged.append(sum((sizes[k] * tokens[k] for k in members), torch.zeros(tokens[0].shape)) / left[-1])
    return merged, left


@pytest.mark.parametrize("left", [63, 40, 25, 7, 1])
def test_merging_is_bipartite_soft_matching_with_weighted_means(left: int) -> None:
    from lab.reproduction.compression import merge_tokens

    tokens = random_tokens(2, 64, seed=left)
    found, sizes = merge_tokens(tokens, left)
    for n in range(2):
        expected, counts = list(tokens[n]), [1.0] * 64
        while len(expected) > left:
            most = min((len(expected) + 1) // 2, len(expected) - 1, len(expected) - left)
            expected, counts = plain_round(expected, counts, most)
        torch.testing.assert_close(found[n], torch.stack(expected), atol=1e-5, rtol=1e-5)
        assert sizes[n].tolist() == counts


@given(count=st.integers(1, 70), data=st.data())
def test_merging_leaves_exactly_what_is_asked_and_keeps_the_mean(count: int, data: st.DataObject) -> None:
    from lab.reproduction.compression import merge_tokens

    left = data.draw(st.integers(1, count))
    tokens = random_tokens(2, count, seed=count)
    found, sizes = merge_tokens(tokens, left)
    assert found.shape == (2, left, 5)
    assert sizes.sum(1).tolist() == [count, count]
    total = (found * sizes[..., None]).sum(1)
    torch.testing.assert_close(total, tokens.sum(1), atol=1e-4, rtol=1e-4)


def test_what_is_alike_is_merged_and_the_rest_keeps_its_order() -> None:
    from lab.reproduction.compression import merge_tokens

    tokens = torch.eye(6)[None].clone()
    tokens[0, 4] = tokens[0, 1] * 3  # the same direction: the nearest pair
    found, sizes = merge_tokens(tokens, 5)
    torch.testing.assert_close(found[0, 1], (tokens[0, 1] + tokens[0, 4]) / 2)
    torch.testing.assert_close(found[0, [0, 2, 3, 4]], tokens[0, [0, 2, 3, 5]])
    assert sizes[0].tolist() == [1, 2, 1, 1, 1]


def test_gradients_go_through_merged_tokens() -> None:
    from lab.reproduction.compression import merge_tokens

    tokens = random_tokens(1, 16).requires_grad_()
    merge_tokens(tokens, 6)[0].sum().backward()
    assert tokens.grad is not None
    assert bool((tokens.grad.abs().sum(-1) > 0).all())


@pytest.mark.parametrize("left", [0, 17])
def test_impossible_numbers_of_tokens_are_refused(left: int) -> None:
    from lab.reproduction.compression import merge_tokens

    with pytest.raises(SvacError):
        merge_tokens(random_tokens(1, 16), left)
