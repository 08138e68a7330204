"""Independent streams of random numbers, each named: leaving one out changes no other."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_sequence(seed: int, *names: str) -> np.random.SeedSequence:
    """The seed of the stream called `names` under the user's `seed`; the same on every machine and in every run.

    Python's own `hash` is salted per process, so the names enter by their BLAKE2 digest.
    """
    digest = hashlib.blake2b("\x1f".join(names).encode(), digest_size=16).digest()
    return np.random.SeedSequence([seed & 0xFFFFFFFFFFFFFFFF, *np.frombuffer(digest, dtype="<u4").tolist()])


def stream(seed: int, *names: str) -> np.random.Generator:
    """A generator on the stream called `names`."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, *names)))


def row_keys(count: int, seed: int, *names: str, start: int = 0) -> np.ndarray:
    """One random 64-bit key a row, counter-based: key i depends on (seed, names, i) alone, however the rows are read.

    uint64 of length `count`, those of the rows from `start` on; linear time and memory.
    """
    key = seed_sequence(seed, *names).generate_state(2, np.uint64)
    source = np.random.Philox(key=key)
    # A step of the counter makes four keys.
    source.advance(start // 4)
    return source.random_raw(count + start % 4)[start % 4 :]
