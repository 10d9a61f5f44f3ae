"""The levels of one side that stand outside its ladder.

They are many and seldom near (a Binance book gathers thousands), are written one by one and read
all at once, every second. So they lie in two arrays, in the order of their arrival, and a
dictionary knows who lies where; a level that goes leaves an empty cell until enough of them have
gathered.
"""

from array import array
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

SLACK: Final = 64
"""Empty cells that are always tolerated; beyond them, no more than there are levels."""


class Far:
    """Quantities by price in ticks."""

    def __init__(self) -> None:
        self._cells: dict[float, int] = {}
        self._ticks = array("d")
        self._quantities = array("d")
        # None while not known: a search costs, and few writes change them.
        self._ends: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self._cells)

    def __contains__(self, tick: float) -> bool:
        return tick in self._cells

    def items(self) -> Iterator[tuple[float, float]]:
        """Every level as (price in ticks, quantity), in the order of arrival."""
        return ((tick, self._quantities[cell]) for tick, cell in self._cells.items())

    def write(self, tick: float, quantity: float) -> int:
        """Set or, with quantity 0, remove a level; return how many more levels there are now."""
        ends = self._ends
        if not quantity:
            gone = self._cells.pop(tick, None)
            if gone is None:
                return 0
            self._quantities[gone] = 0.0
            if ends is not None and tick in ends:
                self._ends = None
            if len(self._ticks) > 2 * len(self._cells) + SLACK:
                self._close_up()
            return -1
        cell = self._cells.get(tick)
        if cell is not None:
            self._quantities[cell] = quantity
            return 0
        self._cells[tick] = len(self._ticks)
        self._ticks.append(tick)
        self._quantities.append(quantity)
        if ends is not None and not ends[0] <= tick <= ends[1]:
            self._ends = min(ends[0], tick), max(ends[1], tick)
        return 1

    def ends(self) -> tuple[float, float] | None:
        """The lowest and the highest price in ticks; None without a level."""
        if self._ends is None and self._cells:
            self._ends = min(self._cells), max(self._cells)
        return self._ends

    def arrays(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Prices in ticks and quantities, both of shape (len,), in the order of arrival."""
        quantities = np.frombuffer(self._quantities)
        used = np.flatnonzero(quantities != 0)
        # Copies: an array cannot grow while something looks at its memory.
        return np.frombuffer(self._ticks)[used], quantities[used]

    def _close_up(self) -> None:
        ticks, quantities = self.arrays()
        self._ticks = array("d", ticks.tobytes())
        self._quantities = array("d", quantities.tobytes())
        self._cells = {tick: cell for cell, tick in enumerate(self._ticks)}
