"""Recent candles: how they are asked for, and what of an answer is believed.

They give a map without history a past to start from. Prices are those of the venue's trades, as
its book counts them; the candle that still grows is left out.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

from monitor.events import NS, Candle

CANDLE_S: Final = 300
"""Seconds of a candle."""

CANDLES_MAX: Final = 1_500
"""Candles believed of one answer, the newest; no venue is asked for more."""

LEAST: Final = 1e-15
MOST: Final = 1e15
"""A price or a quantity beyond these is none."""

CANDLES_WAIT_S: Final = 5.0
"""The first are asked for so long after a socket opened: specifications and books go first."""

CANDLES_ATTEMPTS: Final = 8
"""Requests for one instrument's candles; after these four minutes, live data tell more."""

Row: TypeAlias = tuple[int, float, float, float]
"""Start in ms since the epoch, high, low, close."""

_MS: Final = 1_000_000


def closed_candles(rows: Iterable[Row], at: int) -> list[Candle] | str:
    """The candles that had ended by `at` (ns), or why the whole answer is refused.

    `rows` are to be oldest first. Rows that repeat or overlap are of another shape than
    documented (``schema``).
    """
    candles: list[Candle] = []
    end = 0
    for start_ms, high, low, close in rows:
        if start_ms * _MS < end:
            return "schema"
        end = start_ms * _MS + CANDLE_S * NS
        if not LEAST < low <= close <= high < MOST:
            return "bad_number"
        if end <= at:
            candles.append(Candle(end, low, high, close))
    return candles[-CANDLES_MAX:]
