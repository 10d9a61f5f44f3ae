"""A map's state as bytes and back: versioned, checked, refused with a reason.

Also `Prints`, what one side of a map accumulates between calibrations, which is part of it.
"""

import zlib
from typing import Final, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.core.heatmap.calibration import Window
from monitor.core.heatmap.grid import Cohorts

Floats = NDArray[np.float64]

STATE_VERSION: Final = 2

T = TypeVar("T")


class StateError(Exception):
    """A saved state that cannot be used; the message says why."""


class State(Struct, frozen=True):
    """Everything a map needs to go on; arrays are bytes of little-endian numbers."""

    version: int
    instrument: str
    kind: str
    nodes: list[float]
    numbers: dict[str, float]
    times: dict[str, int]
    profile: dict[int, float]
    shifts: list[list[int]]
    partial: list[tuple[float, int]]
    sides: list["SavedSide"]
    weights: list[list[list[float]]]


class SavedSide(Struct, frozen=True):
    """One side's cohorts and what it has swept and printed since the last calibration."""

    cells: bytes
    beyond: bytes
    visited: bytes
    exposure: bytes
    recent: bytes
    origin: int
    numbers: dict[str, float]
    window: Window


class Prints:
    """What one side has swept and printed since the last calibration, in USD."""

    NUMBERS = ("seen", "guessed", "credit", "expected", "climate", "late", "warm")

    def __init__(self, rows: int) -> None:
        self.exposure: Floats = np.zeros(rows)
        self.recent: Floats = np.zeros(rows)
        self.window = Window()
        self.seen = self.guessed = 0.0
        self.expected = self.climate = 0.0
        self.credit = self.late = self.warm = 0.0

    def forget(self) -> None:
        """Start a new stretch; what was owed to open interest stays owed."""
        self.exposure[:] = 0.0
        self.seen = self.guessed = self.expected = self.climate = 0.0


def unpacked(data: bytes, kind: type[T]) -> T:
    """What `packed` put away.

    Raises:
        StateError: the bytes are damaged, or of another version.
    """
    if len(data) < 5 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "big"):
        raise StateError("state is cut short or its checksum does not match")
    try:
        return msgspec.msgpack.decode(zlib.decompress(data[4:]), type=kind)
    except zlib.error as problem:
        raise StateError(f"state of another version: {problem}") from problem
    except msgspec.DecodeError as problem:
        # A version that lacks or renames fields fails here, before its number is read.
        raise StateError(f"state of another version: {problem}") from problem


def revived(state: State, side: int) -> Cohorts:
    """The cohorts of one side; ValueError, KeyError or IndexError where they do not fit."""
    saved = state.sides[side]
    share, relief = state.partial[side]
    shift = np.array(state.shifts[side][:-1], dtype=np.int64)
    cohorts = Cohorts(shift, first_share=share, relief=relief, at=0)
    cohorts.cells = np.frombuffer(saved.cells, "<f8").reshape(cohorts.cells.shape).copy()
    cohorts.beyond = np.frombuffer(saved.beyond, "<f8").reshape(cohorts.beyond.shape).copy()
    cohorts.visited = np.frombuffer(saved.visited, "<i8").reshape(cohorts.visited.shape).copy()
    if not (np.isfinite(cohorts.cells).all() and (cohorts.cells >= 0).all()):
        raise ValueError("negative or infinite quantities")
    cohorts.origin = saved.origin
    for name in Cohorts.COUNTS:
        setattr(cohorts, name, saved.numbers[name])
    return cohorts


def revived_prints(saved: SavedSide, rows: int) -> Prints:
    """The rest of one side, raising as `revived` does."""
    prints = Prints(rows)
    prints.exposure = np.frombuffer(saved.exposure, "<f8").reshape(rows).copy()
    prints.recent = np.frombuffer(saved.recent, "<f8").reshape(rows).copy()
    prints.window = saved.window
    for name in prints.NUMBERS:
        setattr(prints, name, saved.numbers[name])
    return prints


def packed(value: Struct) -> bytes:
    """A value as compressed bytes, their checksum first."""
    body = zlib.compress(msgspec.msgpack.encode(value), 1)  # mostly empty cells: 1.2 MB to 70 KB
    return zlib.crc32(body).to_bytes(4, "big") + body
