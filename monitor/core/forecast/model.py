"""From what is known of an asset and a direction to calibrated probabilities (model.md A12).

Two models are always computed from the same `Features`: `map`, which knows the cascade map, and
`baseline`, which does not; whoever publishes can see what the map is worth. What is missing is
never good news: it counts as at its training mean, or as last heard where that was worse.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import isfinite, log
from operator import mul
from typing import Final, TypeAlias

from msgspec import Struct

from monitor.core.forecast.features import (
    FALLING,
    INPUTS,
    RISING,
    Features,
    PerHorizon,
    logistic,
)
from monitor.core.saved import StateError
from monitor.events import HORIZONS_S, NS

HOLD_S: Final[dict[str, float]] = {
    "structural": 300.0,
    "passage": 300.0,
    "sigma_fast": 300.0,
    "sigma_slow": 3_600.0,
    "depth": 300.0,
    "refill": 60.0,
    "gain": 300.0,
    "fuel": 300.0,
    "funding": 28_800.0,
    "interest": 1_800.0,
    "endogeneity": 900.0,
    "prints": 300.0,
    "contagion": 300.0,
    "plumbing": 900.0,
}
"""Seconds for which a last known value may still stand in for a missing one."""

FARTHEST: Final = 3.0
"""Standard deviations of the fit beyond which an input says no more: nobody has seen what comes of
the inputs of a cascade that runs already, because none can begin then."""

HeldInputs: TypeAlias = dict[int, PerHorizon]
"""What missing inputs last were, by place."""


def pav(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest non-decreasing sequence by weighted least squares (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, mass, count = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, its, many = blocks.pop()
            mean = (before * its + mean * mass) / (its + mass)
            mass, count = its + mass, many + count
        blocks.append((mean, mass, count))
    return [mean for mean, _, count in blocks for _ in range(count)]


class Calibration(Struct, frozen=True):
    """Maps a model's probability to an observed frequency; never decreasing.

    Platt's ``logistic(intercept + slope * logit(p))`` while there are few positives, then, where
    there are `knots`, isotonic: `values` at these log odds, linear between them and flat outside.
    """

    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (self.slope >= 0.0 and isfinite(self.slope) and isfinite(self.intercept)):
            raise ValueError(f"calibration with slope {self.slope}, expected at least 0")
        if len(self.knots) != len(self.values):
            raise ValueError("calibration with unequal numbers of knots and values")
        if list(self.knots) != sorted(self.knots) or list(self.values) != sorted(self.values):
            raise ValueError("calibration that decreases")

    def probability(self, odds: float) -> float:
        """Calibrated probability of a model that says these log odds."""
        if not self.knots:
            return logistic(self.intercept + self.slope * odds)
        after = bisect_right(self.knots, odds)
        if after in (0, len(self.knots)):
            return self.values[min(after, len(self.knots) - 1)]
        left, right = self.knots[after - 1], self.knots[after]
        low, high = self.values[after - 1], self.values[after]
        return min(low + (high - low) * (odds - left) / (right - left), high)


class Variant(Struct, frozen=True):
    """One of the two models. Per horizon: intercept, and a row over `INPUTS` of each array.

    Log odds are ``intercept + sum(weight * (input - mean) / scale)``, the fraction cut at
    `FARTHEST`.
    """

    intercepts: PerHorizon
    weights: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    means: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    scales: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    calibrations: tuple[Calibration, Calibration, Calibration]

    def __post_init__(self) -> None:
        for rows in (self.weights, self.means, self.scales):
            if any(len(row) != len(INPUTS) for row in rows):
                raise ValueError(f"a model needs {len(INPUTS)} numbers a horizon")
            if not all(isfinite(x) for row in rows for x in row):
                raise ValueError("a model with numbers that are not finite")
        if any(scale <= 0.0 for row in self.scales for scale in row):
            raise ValueError("a model with a scale that is not positive")
        for name, weights in zip(INPUTS, zip(*self.weights, strict=True), strict=True):
            if (name in RISING and min(weights) < 0) or (name in FALLING and max(weights) > 0):
                raise ValueError(f"a model whose weights of {name} have the wrong sign: {weights}")


class Model(Struct, frozen=True):
    """Both variants, what they were made from, and how often the label occurs.

    Attributes:
        version: changes whenever a number does.
        made: how, on what, and with how many positives.
        base: frequency of the label per horizon in an ordinary minute, the 0 of the score.
    """

    version: str
    made: str
    base: PerHorizon
    map: Variant
    baseline: Variant


class Probabilities(Struct, frozen=True):
    """Forecast of one direction; each never decreasing over `HORIZONS_S`.

    Attributes:
        map: with the cascade map.
        baseline: without it.
        missing: inputs that were not known, whether or not a held value stood in.
        held: those of them for which the last known value stood in.
        completeness: 1 less the share of the map model that had to do without its inputs.
    """

    map: PerHorizon
    baseline: PerHorizon
    missing: tuple[str, ...]
    held: tuple[str, ...]
    completeness: float


class HeldState(Struct, frozen=True):
    """A `Forecaster` between two runs: by input, when it was last known and what it then was."""

    inputs: dict[str, tuple[int, PerHorizon]]


class _Line:
    """One horizon of one variant as a line in the inputs themselves.

    `terms` are of the inputs that have any weight: its place, slope, and the range it counts in;
    `usual` is what an input at its mean adds.
    """

    def __init__(
        self,
        weights: Sequence[float],
        means: Sequence[float],
        scales: Sequence[float],
        intercept: float,
    ) -> None:
        slopes = [w / s for w, s in zip(weights, scales, strict=True)]
        self.usual: list[float] = list(map(mul, slopes, means))
        self.start = intercept - sum(self.usual)
        self.terms = [
            (i, slope, mean - FARTHEST * scale, mean + FARTHEST * scale)
            for i, (slope, mean, scale) in enumerate(zip(slopes, means, scales, strict=True))
            if slope
        ]

    def odds(self, h: int, known: Sequence[PerHorizon | None], held: HeldInputs) -> float:
        """Log odds of horizon `h`.

        A missing input adds its mean, or what it last was where that is worse.
        """
        odds = self.start
        for i, slope, low, high in self.terms:
            value = known[i]
            if value is not None:
                odds += slope * min(max(value[h], low), high)
                continue
            last = held.get(i)
            worst = self.usual[i]
            odds += worst if last is None else max(worst, slope * min(max(last[h], low), high))
        return odds


class Forecaster:
    """Probabilities of one asset and direction; remembers what inputs last were."""

    def __init__(self, model: Model) -> None:
        self.model = model
        variants = (model.map, model.baseline)
        self._lines = [
            [
                _Line(weights, means, scales, intercept)
                for weights, means, scales, intercept in zip(
                    v.weights, v.means, v.scales, v.intercepts, strict=True
                )
            ]
            for v in variants
        ]
        self._curves = [v.calibrations for v in variants]
        share = [sum(abs(w) for w in row) for row in zip(*model.map.weights, strict=True)]
        every = 1.0 / len(INPUTS)
        total = sum(share)
        # Half by what the model weighs, half by number: what it does not weigh may still matter.
        self._share = [0.5 * (s / total if total else every) + 0.5 * every for s in share]
        self._at = [0] * len(INPUTS)
        self._last: list[PerHorizon | None] = [None] * len(INPUTS)

    def forecast(self, at: int, features: Features) -> Probabilities:
        """Both models at `at` (ns), which does not go back.

        A missing input counts as at its mean, or as it last was, within `HOLD_S`, where that
        makes the probability higher.
        """
        known = features.vector()
        missing: list[str] = []
        held: HeldInputs = {}
        completeness = 1.0
        for i, value in enumerate(known):
            if value is not None:
                self._at[i], self._last[i] = at, value
                continue
            name, last = INPUTS[i], self._last[i]
            missing.append(name)
            completeness -= self._share[i]
            if last is not None and at - self._at[i] <= HOLD_S[name] * NS:
                held[i] = last
                completeness += 0.5 * self._share[i]
        said = [
            _ordered(
                [
                    curve.probability(line.odds(h, known, held))
                    for h, (line, curve) in enumerate(zip(lines, curves, strict=True))
                ]
            )
            for lines, curves in zip(self._lines, self._curves, strict=True)
        ]
        return Probabilities(
            map=said[0],
            baseline=said[1],
            missing=tuple(missing),
            held=tuple(INPUTS[i] for i in held),
            completeness=max(0.0, completeness),
        )

    def state(self) -> HeldState:
        """What a restart must not forget."""
        rows = zip(INPUTS, self._at, self._last, strict=True)
        return HeldState({name: (at, last) for name, at, last in rows if last is not None})

    def restore(self, state: HeldState) -> None:
        """Take over a saved state.

        Raises:
            StateError: it names inputs that do not exist, or holds numbers that are not finite.
        """
        for name, (_, last) in state.inputs.items():
            if name not in INPUTS:
                raise StateError(f"forecast with an input {name!r}, which does not exist")
            if not all(isfinite(x) for x in last):
                raise StateError(f"forecast with a {name} that is not finite")
        for i, name in enumerate(INPUTS):
            self._at[i], self._last[i] = state.inputs.get(name, (0, None))


def _ordered(p: list[float]) -> PerHorizon:
    if not p[0] <= p[1] <= p[2]:
        p = pav(p, [1.0] * len(HORIZONS_S))
    return p[0], p[1], p[2]


def score(p: float, base: float) -> float:
    """Headline score in [0, 1]: 0 in an ordinary minute, 1 at even odds (A12).

    Raises:
        ValueError: `base` is not between 0 and 0.5, or `p` is no probability.
    """
    if not 0.0 < base < 0.5:
        raise ValueError(f"base rate {base}, expected between 0 and 0.5")
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"probability {p}, expected between 0 and 1")
    if p <= base:
        return 0.0
    return min(1.0, log(p / base) / log(0.5 / base))


def confidence(*, feeds: float, map_confidence: float | None, completeness: float) -> float:
    """How far a forecast can be trusted, 0 to 1; never part of the risk itself (A12).

    The product of the health of the feeds, the confidence of the map, of which there is none
    without one, and `Probabilities.completeness`. A12's age of the calibration has no part: the
    shipped one is of the simulated market, which does not change.
    """
    return feeds * (map_confidence or 0.0) * completeness
