"""Reads a recorded past of five-minute open interest, price and funding, and hourly liquidations.

Formats, as CSV with a header, plain or gzipped; further columns are not looked at:

- ``<ASSET>_oi_5m.csv[.gz]``: ``t`` in Unix ms, ``oi`` in base units, and ``oi_usd`` or ``price``;
- ``<ASSET>_funding.csv[.gz]``, optional: ``ts`` in Unix ms, ``rate`` per funding interval;
- liquidations, a file named by the user: ``timestamp`` in Unix ms (begin of the hour), ``longUsd``
  and ``shortUsd`` force-closed within it.

Rows are oldest first. Times may be off their five minutes or hour by `OFF_S`.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.events import NS
from monitor.logs import plain
from monitor.recordings import RecordingError

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

SAMPLE_S: Final = 300
OFF_S: Final = 30
"""Recorders write down a round time or the moment they asked; farther off is another sampling."""
BRIDGED: Final = 12
"""Missing samples, an hour of them, that do not end a stretch."""
FUNDING_INTERVAL_H: Final = 8.0
"""What rates are converted to."""

_INTEREST: Final = "_oi_5m.csv"
_FUNDING: Final = "_funding.csv"


class HistoryError(RecordingError):
    """A file of the past cannot be used; the message names file and line."""


class Past(Struct, frozen=True):
    """What was recorded of one asset on one venue.

    Attributes:
        at: ends of the samples (ns), multiples of five minutes, increasing; shape (n,).
        interest: one-sided open interest, base units.
        price: mark price, USD.
        funding_at: when a funding rate was set (ns), shape (m,).
        funding: rate per 8 hours; empty where none was recorded.
    """

    asset: str
    at: Times
    interest: Floats
    price: Floats
    funding_at: Times
    funding: Floats


class Stretch(Struct, frozen=True):
    """Samples of one asset without a long gap, on a regular grid; NaN where one is missing."""

    asset: str
    at: Times
    interest: Floats
    price: Floats
    funding: Floats


class Hours(Struct, frozen=True):
    """Forced closes by hour: its begin (ns), and USD of longs and of shorts, shape (n, 2)."""

    at: Times
    usd: Floats


def pasts(directory: Path) -> list[Past]:
    """Everything recorded in a directory, by name of the asset.

    Raises:
        HistoryError: nothing is there, or a file is not as the module says.
    """
    files = sorted(f for f in directory.glob(f"*{_INTEREST}*") if _is_csv(f, _INTEREST))
    if not files:
        raise HistoryError(f"{directory}: no file named <ASSET>{_INTEREST} or {_INTEREST}.gz")
    found: list[Past] = []
    for file in files:
        asset = file.name.partition(_INTEREST)[0]
        if any(p.asset == asset for p in found):
            raise HistoryError(f"{file}: a second file of {asset}")
        found.append(_past(asset, file))
    return found


def hours(file: Path) -> Hours:
    """Liquidations by hour.

    Raises:
        HistoryError: the file is not as the module says.
    """
    rows = list(_rows(file, ("timestamp", "longUsd", "shortUsd")))
    at = _times(file, [row[0] for row in rows], every_s=3_600)
    usd = np.array([row[1:] for row in rows])
    if usd.min() < 0.0:
        raise HistoryError(f"{file}: line {_line(usd.min(axis=1) < 0.0)}: negative USD")
    return Hours(at, usd)


def stretches(past: Past) -> list[Stretch]:
    """The past cut at gaps of more than `BRIDGED` samples, smaller ones filled with NaN."""
    step = SAMPLE_S * NS
    cuts = np.flatnonzero(np.diff(past.at) > (BRIDGED + 1) * step) + 1
    found = []
    for piece in np.split(np.arange(len(past.at)), cuts):
        at = np.arange(past.at[piece[0]], past.at[piece[-1]] + step, step)
        place = (past.at[piece] - at[0]) // step
        filled = np.full((2, len(at)), np.nan)
        filled[:, place] = past.interest[piece], past.price[piece]
        # The rate that was last set; before the first there is none.
        last = np.searchsorted(past.funding_at, at, side="right") - 1
        funding = np.full(len(at), np.nan)
        funding[last >= 0] = past.funding[last[last >= 0]]
        found.append(Stretch(past.asset, at, filled[0], filled[1], funding))
    return found


# ---------------------------------------------------------------------------------- parsing


def _is_csv(file: Path, ending: str) -> bool:
    return file.name.endswith((ending, f"{ending}.gz")) and len(file.name) > len(ending)


def _past(asset: str, file: Path) -> Past:
    with_usd = "oi_usd" in _header(file)
    rows = list(_rows(file, ("t", "oi", "oi_usd" if with_usd else "price")))
    at = _times(file, [row[0] for row in rows], every_s=SAMPLE_S)
    interest, value = np.array([row[1:] for row in rows]).T
    bad = (interest <= 0.0) | (value <= 0.0)
    if bad.any():
        raise HistoryError(f"{file}: line {_line(bad)}: open interest and price are above 0")
    price = value / interest if with_usd else value
    funding_at, funding = np.empty(0, dtype=np.int64), np.empty(0)
    for name in (f"{asset}{_FUNDING}", f"{asset}{_FUNDING}.gz"):
        if (file.parent / name).is_file():
            funding_at, funding = _funding(file.parent / name)
    return Past(asset, at, interest, price, funding_at, funding)


def _funding(file: Path) -> tuple[Times, Floats]:
    rows = list(_rows(file, ("ts", "rate")))
    at = np.array([round(row[0]) for row in rows], dtype=np.int64) * (NS // 1_000)
    if len(at) < 2 or (np.diff(at) <= 0).any():
        raise HistoryError(f"{file}: at least two rates, each later than the one before")
    # The interval a rate is for is the shortest seen: rates may be missing, never too many.
    interval_h = float(np.diff(at).min()) / NS / 3_600.0
    return at, np.array([row[1] for row in rows]) * (FUNDING_INTERVAL_H / round(interval_h, 2))


def _times(file: Path, ms: Sequence[float], *, every_s: int) -> Times:
    """Times in ns on their grid."""
    raw = np.array(ms) / 1_000.0
    number = np.rint(raw / every_s)
    off = np.abs(raw - number * every_s) > OFF_S
    if off.any():
        raise HistoryError(
            f"{file}: line {_line(off)}: not at a multiple of {every_s} s, give or take {OFF_S} s"
        )
    late = np.append(False, np.diff(number) <= 0)
    if late.any():
        raise HistoryError(f"{file}: line {_line(late)}: not later than the line before")
    at: Times = number.astype(np.int64) * (every_s * NS)
    return at


def _line(bad: NDArray[np.bool_]) -> int:
    """Number of the first bad row's line, after the header."""
    return int(np.argmax(bad)) + 2


def _header(file: Path) -> list[str]:
    return next(_lines(file), [])


def _rows(file: Path, columns: Sequence[str]) -> Iterator[list[float]]:
    lines = _lines(file)
    header = next(lines, [])
    missing = [c for c in columns if c not in header]
    if missing:
        raise HistoryError(f"{file}: no column {missing[0]!r}; the header has {header}")
    places = [header.index(c) for c in columns]
    number = 1
    for number, line in enumerate(lines, 2):
        try:
            row = [float(line[i]) for i in places]
        except (ValueError, IndexError) as error:
            raise HistoryError(f"{file}: line {number}: {error}") from error
        if not all(map(isfinite, row)):
            raise HistoryError(f"{file}: line {number}: {row} is not finite")
        yield row
    if number == 1:
        raise HistoryError(f"{file}: a header and nothing else")


def _lines(file: Path) -> Iterator[list[str]]:
    try:
        if file.suffix == ".gz":
            with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
                yield from csv.reader(text)
        else:
            with file.open(encoding="utf-8", newline="") as text:
                yield from csv.reader(text)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise HistoryError(f"{file}: {plain(error)}") from error
