"""What `volatility.VolatilityForecast` remembers: its measures, and its saved state, checked."""

from math import isfinite
from typing import Final

from msgspec import Struct

from monitor.core.forecast.jumps import Jumps
from monitor.core.saved import StateError

VOLATILITY_HORIZONS_S: Final = (60, 300, 900, 3600)
SECONDS: Final = 300
"""Squared one-second returns that are kept."""
HOUR: Final = 60
DAY_MINUTES: Final = 1_440
"""Minute variances that are kept."""
UNKNOWN: Final = -1.0
"""Stands for a second without a return and for a minute with too few."""


class VolatilityState(Struct, frozen=True):
    """A `VolatilityForecast` between two runs."""

    numbers: dict[str, float]
    signature: list[float]
    prices: list[float | None]
    seconds: list[float]
    minutes: list[float]
    halves: list[tuple[float, float]]
    season: list[tuple[float, float]]
    pending: list[list[float]]
    residuals: list[tuple[float, float]]
    learnt: list[tuple[list[float], list[float]]]


def check(state: VolatilityState, names: set[str]) -> None:
    """Raise StateError where a state is not one."""
    horizons = len(VOLATILITY_HORIZONS_S)
    sizes = (
        (state.signature, 3),
        (state.prices, 2),
        (state.seconds, SECONDS),
        (state.minutes, DAY_MINUTES),
        (state.halves, HOUR),
        (state.season, 24),
        (state.pending, HOUR + 1),
        (state.residuals, horizons),
        (state.learnt, horizons),
    )
    if any(len(part) != size for part, size in sizes) or set(state.numbers) != names:
        raise StateError("volatility of another shape")
    row = 7 + horizons
    if any(len(pending) not in (0, row) for pending in state.pending):
        raise StateError("volatility with regressors of another number")
    pairs = (*state.halves, *state.season, *state.residuals)
    plain = (
        *state.numbers.values(),
        *state.signature,
        *state.seconds,
        *state.minutes,
        *(x for pair in pairs for x in pair),
        *(x for pending in state.pending for x in pending),
        *(p for p in state.prices if p is not None),
    )
    if not all(isfinite(x) for x in plain):
        raise StateError("volatility with numbers that are not finite")
    positive = (state.numbers["_level_weight"], state.numbers["_ewma"], *state.signature)
    masses = (*(mass - 1e-9 for mass, _ in state.residuals), *(w for w, _ in state.season))
    prices = (p for p in state.prices if p is not None)
    if min(*positive, *masses) < 0.0 or any(p <= 0.0 for p in prices):
        raise StateError("volatility with a negative variance, weight or price")
    if any(x < 0.0 and x != UNKNOWN for x in (*state.seconds, *state.minutes)):
        raise StateError("volatility with negative squares")
    if any(state.numbers[name] < 0.0 for name in Jumps.NUMBERS):
        raise StateError("volatility with negative counts of jumps")
