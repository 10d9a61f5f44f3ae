"""What is believed about leverage before the prints, and what the prints then teach.

Three learners, all online, deterministic and serialisable:

- `ThrottleCorrection`: true over printed liquidations of feeds that print once a second, learnt by
  throttling complete feeds in software; one object pooled over all instruments (model.md A3);
- `Weights`: Gamma-Poisson weights of the leverage nodes of one instrument, with a parent that
  pools the instruments of an asset (A3);
- the climatology: how far from the mark liquidations lie on average (A6), in `Prior`.
"""

from math import erf, log, sqrt
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CLIMATOLOGY_STEP: Final = 0.0025
"""Log-distance step of a climatology."""


def _lognormal(median: float, tenth: float) -> tuple[float, ...]:
    """Cumulative share within each climatology step of a lognormal distance, up to 50 %."""
    sigma = log(median / tenth) / 1.2816
    edges = [(i + 1) * CLIMATOLOGY_STEP for i in range(200)]
    return tuple(0.5 + 0.5 * erf(log(x / median) / sigma / sqrt(2)) for x in edges)


def _mixed(isolated_median: float) -> tuple[float, ...]:
    # Hyperliquid by notional: cross 95 % with median 35 % and p10 9 %, isolated 5 % (model.md A2).
    cross = _lognormal(0.35, 0.09)
    isolated = _lognormal(isolated_median, isolated_median / 3.9)
    return tuple(round(0.95 * c + 0.05 * i, 9) for c, i in zip(cross, isolated, strict=True))


class Prior(Struct, frozen=True):
    """What is believed of an instrument before it has been heard.

    Attributes:
        leverage: nodes, effective leverage (notional over the margin that stands behind it).
        mix: share of open interest per node, long and short; each sums to 1.
        share: liquidatable share of open interest, long and short.
        climatology: cumulative share of the liquidatable notional within each
            `CLIMATOLOGY_STEP` of the mark, long and short; the rest lies beyond.
        source: where the figures come from.
    """

    leverage: tuple[float, ...]
    mix: tuple[tuple[float, ...], tuple[float, ...]]
    share: tuple[float, float]
    climatology: tuple[tuple[float, ...], tuple[float, ...]]
    source: str


_NODES = (1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 12.5, 15.0, 20.0, 25.0, 33.0, 40.0, 50.0, 75.0, 100.0)
_MIX = (
    0.03,
    0.06,
    0.08,
    0.08,
    0.12,
    0.08,
    0.13,
    0.03,
    0.05,
    0.12,
    0.08,
    0.02,
    0.02,
    0.05,
    0.02,
    0.03,
)
DEFAULT_PRIOR: Final = Prior(
    leverage=_NODES,
    mix=(_MIX, _MIX),
    share=(0.55, 0.55),
    climatology=(_mixed(0.223), _mixed(0.079)),
    source="model.md A2: Hyperliquid quantiles and a suggested leverage mix, not of this market",
)
"""Shipped prior; to be replaced per coin by a fit on positions (`monitor.backtest`)."""


# ------------------------------------------------------------------------------ throttled feeds

WINDOW_S: Final = 10
"""Seconds over which the occupancy of a throttled feed is counted."""

CLASSES: Final = (0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6)
"""Class by number of occupied seconds in a window."""

PRIOR_FACTORS: Final = (1.0, 1.1, 1.25, 1.45, 1.75, 2.15, 2.9)
"""True over printed notional by class, where the largest of each second is printed: 1.4 over
ordinary and 2.9 over full windows of the simulated market, the rest between them on a log scale."""

_PRIOR_WINDOWS = 20.0


class ThrottleCorrection:
    """True over printed notional by occupancy, from complete feeds throttled in software.

    Feed it every closed window of a complete feed (`learn`), ask it for throttled ones (`factor`).
    Sums are in typical prints of the instrument, so that large instruments do not outvote others.
    """

    def __init__(self) -> None:
        self._true = [0.0] * len(PRIOR_FACTORS)
        self._printed = [0.0] * len(PRIOR_FACTORS)

    def learn(self, true: float, printed: float, occupied: int) -> None:
        """Count one window: everything, the largest of each second, and the seconds occupied."""
        c = CLASSES[min(occupied, WINDOW_S)]
        self._true[c] += true
        self._printed[c] += printed

    def factor(self, occupied: int) -> float:
        """What to multiply printed notional by; at least 1."""
        c = CLASSES[min(occupied, WINDOW_S)]
        true = self._true[c] + _PRIOR_WINDOWS * PRIOR_FACTORS[c]
        return max(1.0, true / (self._printed[c] + _PRIOR_WINDOWS))

    def state(self) -> list[list[float]]:
        """For the engine's saved state."""
        return [list(self._true), list(self._printed)]

    def restore(self, state: list[list[float]]) -> None:
        """Take over a saved state."""
        true, printed = state
        if not len(true) == len(printed) == len(PRIOR_FACTORS):
            raise ValueError(f"throttle correction of {len(true)} and {len(printed)} classes")
        self._true, self._printed = list(true), list(printed)


class Window(Struct):
    """Prints of one side in the running window of `WINDOW_S` seconds."""

    number: int = 0
    total: float = 0.0
    throttled: float = 0.0
    second: int = -1
    largest: float = 0.0
    occupied: int = 0
    complete: bool = False

    def add(self, second: int, usd: float) -> None:
        """Take one print."""
        if second != self.second:
            self.occupied += 1
            self.second, self.largest = second, 0.0
        self.total += usd
        # Throttling keeps the largest of a second (Binance since 2026-04-10).
        self.throttled += max(0.0, usd - self.largest)
        self.largest = max(self.largest, usd)


def print_ratio(expected_usd: float, observed_usd: float, print_usd: float) -> float | None:
    """Forced closes printed over those that a map expected; None while there is too little of both.

    With less expected than what weighs as much as the prior (`Weights`), in typical prints of
    `print_usd`, a few prints would make it anything. That much is the least it is divided by: what
    was printed where less was expected gives a lower bound.
    """
    least = Weights.STRENGTH * Weights.DISPERSION * print_usd
    if not max(expected_usd, observed_usd) >= least > 0.0:
        return None
    return observed_usd / max(expected_usd, least)


# ------------------------------------------------------------------------------ node weights


class Weights:
    """Gamma-Poisson weights of both sides' nodes: the liquidatable share that really prints.

    ``w = (n0 w0 + a) / (n0 + b)`` with prints a and exposures b, both in typical prints and
    divided by `DISPERSION`; w0 is the parent's weight, or the prior's. Nodes never swept keep w0.
    """

    STRENGTH = 10.0
    """n0: exposure, in typical prints, that weighs as much as the prior."""
    DISPERSION = 4.0
    """Prints of one sweep come in bunches: variance over mean of their number (guess, tuned)."""
    LOWEST, HIGHEST = 0.02, 4.0
    FORGET = 0.5 ** (1 / 2_880)
    """Per swept minute: half of what was learnt is forgotten in two days of sweeping (A3); by a
    parent per swept minute of each child."""

    def __init__(self, prior: Prior, *, parent: "Weights | None" = None) -> None:
        """`parent` pools the instruments of one asset; it learns whatever its children learn."""
        rows = len(prior.leverage) + 1
        self._start = np.repeat(np.array(prior.share)[:, None], rows, axis=1)
        self._prints = np.zeros((2, rows))
        self._exposure = np.zeros((2, rows))
        self._parent = parent
        self._changes = 0
        self._seen: list[float | None] = [None, None]
        self._moments: dict[int, tuple[int, tuple[Floats, Floats]]] = {}

    def mean(self, side: int) -> Floats:
        """Weights of one side (0 long, 1 short), shape (rows,)."""
        return self.moments(side)[0]

    def variance(self, side: int) -> Floats:
        """Variance of each weight."""
        return self.moments(side)[1]

    def moments(self, side: int) -> tuple[Floats, Floats]:
        """Both, to be read only; the same arrays as long as nothing was learnt."""
        changes = self.changes
        if side not in self._moments or self._moments[side][0] != changes:
            self._moments[side] = changes, self._taken(side)
        return self._moments[side][1]

    @property
    def changes(self) -> int:
        """How often something was learnt, the parent included."""
        return self._changes + (0 if self._parent is None else self._parent.changes)

    def _taken(self, side: int) -> tuple[Floats, Floats]:
        start = self._start[side] if self._parent is None else self._parent.mean(side)
        strength = self.STRENGTH + self._exposure[side]
        found = (self.STRENGTH * start + self._prints[side]) / strength
        # np.clip costs more than all the rest.
        mean: Floats = np.minimum(np.maximum(found, self.LOWEST), self.HIGHEST)
        return mean, mean / strength

    def information(self, side: int) -> float:
        """Share of what is believed that was learnt, 0 to 1, by exposure of the nodes seen."""
        seen = self._seen[side]
        if seen is None:
            seen = self._seen[side] = float(self._exposure[side].sum())
        return seen / (seen + self.STRENGTH * 3)

    def learn(
        self, side: int, exposure: Floats, prints: float, *, by: Floats, weight: float = 1.0
    ) -> None:
        """A sweep of `exposure` per row printed `prints`, both in typical prints.

        `by` is the exposure that the prints are attributed to: the same one, or that of an
        earlier sweep for prints that come late. `weight` below 1 says that the number of prints
        is partly a guess.
        """
        expected = self.mean(side) * by
        total = float(expected.sum())
        if total <= 0:
            return
        scale = weight / self.DISPERSION
        if exposure.any():
            self._prints[side] *= self.FORGET
            self._exposure[side] *= self.FORGET
        self._prints[side] += expected * (prints / total * scale)
        self._exposure[side] += exposure * scale
        self._seen[side] = None
        self._changes += 1
        if self._parent is not None:
            self._parent.learn(side, exposure, prints, by=by, weight=weight)

    def state(self) -> list[list[list[float]]]:
        """For saved states; the parent's is its own."""
        prints, exposure = self._prints.tolist(), self._exposure.tolist()
        return [prints, exposure]

    def restore(self, state: list[list[list[float]]]) -> None:
        """Take over a saved state of the same prior's nodes."""
        prints, exposure = np.array(state[0]), np.array(state[1])
        if prints.shape != self._prints.shape or exposure.shape != prints.shape:
            raise ValueError(f"weights of shape {prints.shape}, expected {self._prints.shape}")
        self._prints, self._exposure = prints, exposure
        self._seen = [None, None]
        self._changes += 1


# ------------------------------------------------------------------------------ intervals

_SHAPES = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6, 2.5, 4.0, 7.0, 12.0, 25.0, 60.0, 200.0, 1000.0)
_LOWS = (
    0.0,
    0.0,
    0.0,
    0.0029,
    0.0301,
    0.1054,
    0.2104,
    0.3221,
    0.4362,
    0.5564,
    0.6524,
    0.7538,
    0.8385,
    0.9105,
    0.9597,
)
_HIGHS = (
    1.524,
    2.6595,
    3.0234,
    2.8871,
    2.6005,
    2.3025,
    2.0513,
    1.8472,
    1.6702,
    1.5046,
    1.3832,
    1.2633,
    1.1686,
    1.0916,
    1.0407,
)
_LOG_SHAPES = np.array([log(k) for k in _SHAPES])


def interval(mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """80 % interval of gamma variables with these moments (model.md A6); 0 where the mean is 0.

    The quantiles are tabulated by shape, from numerical integration of the gamma density.
    """
    safe = np.maximum(mean, 1e-9)
    # The table ends are far outside anything a map contains.
    shape = np.log(np.maximum(safe * safe / np.maximum(variance, 1e-18), 1e-3))
    low: Floats = mean * np.interp(shape, _LOG_SHAPES, _LOWS)
    high: Floats = mean * np.interp(shape, _LOG_SHAPES, _HIGHS)
    return low, high
