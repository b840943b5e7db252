import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kernels.philox import PARAMETER_POSITION, philox, to_normal, to_unit_interval

WORD = 2**32 - 1
COUNT = 2**18
SIGMAS = 5

# Salmon et al.: kat_vectors of Random123 for philox4x32-10, as (counter, key, result).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD, WORD, WORD, WORD), (WORD, WORD), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

word = st.integers(0, WORD)


def one(seed: int, position: int, image: int, copy: int, epoch: int) -> tuple[int, ...]:
    counter = [torch.tensor(value) for value in (position, image, copy)]
    return tuple(int(value) for value in philox(seed, *counter, epoch))


def many(count: int, seed: int = 1) -> tuple[torch.Tensor, ...]:
    position = torch.arange(count)
    return philox(seed, position, torch.zeros_like(position), torch.zeros_like(position), 0)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers_of_random123(
    counter: tuple[int, int, int, int], key: tuple[int, int], result: tuple[int, ...]
) -> None:
    assert one(key[0] | key[1] << 32, *counter) == result


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**64 - 1), counters=st.lists(st.tuples(word, word, word), min_size=1), epoch=word)
def test_a_batch_gives_what_each_counter_gives_alone(
    seed: int, counters: list[tuple[int, int, int]], epoch: int
) -> None:
    position, image, copy = (torch.tensor(column) for column in zip(*counters, strict=True))
    batch = torch.stack(philox(seed, position, image, copy, epoch), dim=-1)
    assert batch.dtype == torch.int64
    assert [tuple(row) for row in batch.tolist()] == [one(seed, *counter, epoch) for counter in counters]
    assert batch.min() >= 0
    assert batch.max() <= WORD


def test_counters_are_broadcast() -> None:
    position, image, copy = torch.arange(3)[None, :], torch.arange(4)[:, None], torch.tensor([[5]])
    words = philox(9, position, image, copy, 2)
    assert all(part.shape == (4, 3) for part in words)
    assert tuple(int(part[3, 1]) for part in words) == one(9, 1, 3, 5, 2)


def test_every_word_of_key_and_counter_changes_the_result() -> None:
    base = (3, 1, 2, 3, 4)
    changed = [tuple(value + (index == place) for index, value in enumerate(base)) for place in range(5)]
    results = [one(*arguments) for arguments in (base, *changed, (3 + 2**32, 1, 2, 3, 4))]
    assert len(set(results)) == 7


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_outside_64_bits_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed {seed} is outside"):
        one(seed, 0, 0, 0, 0)


@pytest.mark.parametrize("epoch", [-1, 2**32])
def test_epoch_outside_32_bits_is_refused(epoch: int) -> None:
    with pytest.raises(ValueError, match=f"epoch {epoch} is outside"):
        one(0, 0, 0, 0, epoch)


def test_parameters_have_a_position_no_pixel_has() -> None:
    largest_image = 2**34 - 4  # pixels, four to a position
    assert (largest_image + 3) // 4 - 1 < PARAMETER_POSITION == WORD


def test_unit_interval_is_open_and_centred() -> None:
    ends = to_unit_interval(torch.tensor([0, 511, 512, WORD]))
    assert ends.dtype == torch.float32
    assert ends.tolist() == [2.0**-24, 2.0**-24, 3 * 2.0**-24, 1 - 2.0**-24]


def test_unit_interval_is_uniform() -> None:
    for words in many(COUNT):
        assert stats.kstest(to_unit_interval(words).numpy(), "uniform").pvalue > 1e-4


def test_normal_values_are_finite_at_the_ends() -> None:
    ends = torch.tensor([0, 1, WORD // 2, WORD])
    values = torch.stack(to_normal(*torch.meshgrid(ends, ends, indexing="ij")))
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    assert values.abs().max() <= math.sqrt(2 * 24 * math.log(2)) * (1 + 1e-6)


def test_normal_values_follow_box_and_muller() -> None:
    radius_words, angle_words = many(1000)[:2]
    u = ((radius_words.numpy() >> 9) + 0.5) / 2**23
    turn = np.exp(2j * np.pi * ((angle_words.numpy() >> 9) + 0.5) / 2**23)
    expected = np.sqrt(-2 * np.log(u)) * turn
    first, second = to_normal(radius_words, angle_words)
    np.testing.assert_allclose(first.numpy() + 1j * second.numpy(), expected, atol=1e-5)


def test_normal_mean_variance_tails_and_shape() -> None:
    a, b, c, d = many(COUNT)
    parts = [*to_normal(a, b), *to_normal(c, d)]
    for part in parts:
        values = part.double().numpy()
        assert abs(values.mean()) < SIGMAS / math.sqrt(COUNT)
        assert abs(values.var() - 1) < SIGMAS * math.sqrt(2 / COUNT)
        assert stats.kstest(values, "norm").pvalue > 1e-4
        for limit in (1, 2, 3, 4):
            expected = 2 * stats.norm.sf(limit)
            deviation = math.sqrt(expected * (1 - expected) / COUNT)
            assert abs((np.abs(values) > limit).mean() - expected) < SIGMAS * deviation
    correlation = np.corrcoef(np.stack([part.numpy() for part in parts]))
    assert np.abs(correlation - np.eye(4)).max() < SIGMAS / math.sqrt(COUNT)
