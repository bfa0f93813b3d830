"""An order that is shuffled by a key, computed place by place."""

import numpy as np

_FEISTEL_ROUNDS = 8


def permuted(order: np.ndarray, total: int, seed: int, epoch: int) -> np.ndarray:
    """Places in 0..total-1 to places in a shuffled order of them: int64, same shape.

    A bijection for each (seed, epoch), computed place by place without a table.

    >>> sorted(permuted(np.arange(10), 10, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    keys = np.random.SeedSequence([seed, epoch]).generate_state(_FEISTEL_ROUNDS, np.uint64)
    bits = max((total - 1).bit_length(), 2)
    values = _feistel(order.astype(np.uint64), bits, keys)
    # A Feistel network shuffles a power of two, less than twice the total. Applied again
    # to what falls outside, it comes back inside, and stays a bijection there.
    while (outside := values >= total).any():
        values[outside] = _feistel(values[outside], bits, keys)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    # Halves of unequal width, changed in turn by a mix of the other: each round undoes
    # itself when run again, so the whole is a bijection of `bits`-bit numbers.
    low_bits = bits // 2
    low_mask = np.uint64((1 << low_bits) - 1)
    high_mask = np.uint64((1 << (bits - low_bits)) - 1)
    low, high = values & low_mask, values >> np.uint64(low_bits)
    for number, key in enumerate(keys):
        if number % 2:
            high = high ^ (_mixed(low ^ key) & high_mask)
        else:
            low = low ^ (_mixed(high ^ key) & low_mask)
    return (high << np.uint64(low_bits)) | low


def _mixed(values: np.ndarray) -> np.ndarray:
    # The finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every other.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
