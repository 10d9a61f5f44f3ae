"""Random numbers in named streams that a twin run consumes in exactly the same way.

Every stream takes the same number of draws at every step whatever the market does, so two runs
that differ in one rule still see the same chance. Nothing here depends on global state.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["uniform", "normal", "exponential", "student"]

# Rows drawn at once: large enough to make the cost per step small, small enough to keep memory.
_BLOCK = 2_048

STREAMS = (
    "level_sizes",
    "past_path",
    "population",
    "returns",
    "volatility",
    "jumps",
    "jump_sizes",
    "noise",
    "noise_volume",
    "entries",
    "entry_sizes",
    "exits",
    "scenario",
    "venue_basis",
    "survival",
)
"""Names in the order of their identities: append only, or every seed changes its meaning."""


def generator(seed: int, stream: str) -> np.random.Generator:
    """The generator of one named stream, independent of all others of the same seed."""
    key = STREAMS.index(stream)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,))))


class Draws:
    """Rows of `width` draws from one stream, one row per step."""

    def __init__(self, seed: int, stream: str, *, kind: Kind, width: int) -> None:
        self._generator = generator(seed, stream)
        self._kind = kind
        self._width = width
        self._block = self._fresh()
        self._row = 0

    def row(self) -> NDArray[np.float64]:
        """The next row."""
        if self._row == _BLOCK:
            self._block, self._row = self._fresh(), 0
        self._row += 1
        row: NDArray[np.float64] = self._block[self._row - 1]
        return row

    def _fresh(self) -> NDArray[np.float64]:
        shape = (_BLOCK, self._width)
        if self._kind == "uniform":
            return self._generator.random(shape)
        if self._kind == "normal":
            return self._generator.standard_normal(shape)
        if self._kind == "exponential":
            return self._generator.standard_exponential(shape)
        # Three degrees of freedom: the jump law of model.md C1.
        return self._generator.standard_t(3, shape)
