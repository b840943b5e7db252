"""Philox-4x32-10, the counter-based random stream that every augmentation shares.

The same key and counter give the same four words on any device, in any order, so a random number is addressed,
never consumed. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

The key is the seed. The counter is ``(position, image, copy, epoch)``: ``position`` is ``PARAMETER_POSITION`` for the
geometry of a row and the index of a group of four pixels for its noise.
"""

import torch
from torch import Tensor

PARAMETER_POSITION = 0xFFFFFFFF
"""Counter word of a row's parameters; no image has this many groups of four pixels."""

MULTIPLIER_A, MULTIPLIER_B = 0xD2511F53, 0xCD9E8D57
WEYL_A, WEYL_B = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
WORD = 0xFFFFFFFF


def check_counters(seed: int, epoch: int | Tensor) -> None:
    """Check the seed and, where it is a number, the epoch.

    Raises:
        ValueError: one is outside its range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is outside 0 <= seed < 2**64")
    if not isinstance(epoch, Tensor) and not 0 <= epoch < 2**32:
        raise ValueError(f"epoch {epoch} is outside 0 <= epoch < 2**32")


def philox(
    seed: int, position: Tensor, image: Tensor, copy: Tensor, epoch: int | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four independent uniform 32-bit words for each counter.

    Args:
        seed: key, 0 <= seed < 2**64.
        position: int64, broadcastable against ``image`` and ``copy``, each value below 2**32.
        image: int64, row of the image in the prepared array.
        copy: int64, number of the augmented copy.
        epoch: number of the epoch, below 2**32; a tensor of one int64 is read on its device and not checked.

    Returns:
        Four int64 tensors of the broadcast shape, values in [0, 2**32).

    Raises:
        ValueError: the seed or the epoch is outside its range.
    """
    check_counters(seed, epoch)
    c0, c1, c2 = torch.broadcast_tensors(position, image, copy)
    c3 = torch.zeros_like(c0) + epoch
    key_a, key_b = seed & WORD, seed >> 32
    for _ in range(ROUNDS):
        # int64 wraps modulo 2**64, so the low word is right, and the high word too once the sign is masked off. What
        # stands above the low word is only ever combined by xor, so it is masked off with the high word's sign.
        product_a, product_b = c0 * MULTIPLIER_A, c2 * MULTIPLIER_B
        c0 = (product_b >> 32).bitwise_xor_(c1).bitwise_xor_(key_a).bitwise_and_(WORD)
        c2 = (product_a >> 32).bitwise_xor_(c3).bitwise_xor_(key_b).bitwise_and_(WORD)
        c1, c3 = product_b, product_a
        key_a, key_b = (key_a + WEYL_A) & WORD, (key_b + WEYL_B) & WORD
    return c0, c1.bitwise_and_(WORD), c2, c3.bitwise_and_(WORD)


def to_unit_interval(words: Tensor) -> Tensor:
    """Map 32-bit words to float32 in the open interval (0, 1), from the upper 23 bits: (k + 1/2) / 2**23."""
    return ((words >> 9).float() + 0.5) * 2.0**-23


def to_normal(radius_words: Tensor, angle_words: Tensor) -> tuple[Tensor, Tensor]:
    """Map two tensors of 32-bit words to two of independent standard normal float32 values (Box and Muller, 1958)."""
    radius = torch.sqrt(-2.0 * torch.log(to_unit_interval(radius_words)))
    angle = (2.0 * torch.pi) * to_unit_interval(angle_words)
    return radius * torch.cos(angle), radius * torch.sin(angle)
