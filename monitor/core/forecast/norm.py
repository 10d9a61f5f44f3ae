"""What is usual for a quantity: running mean and spread, and how unusual a value is."""

from math import erf, exp, isfinite, sqrt
from typing import Final

from msgspec import Struct

from monitor.core.saved import StateError
from monitor.events import NS

MEMORY_S: Final = 30 * 86_400.0
"""Seconds over which a norm forgets by e (model.md A13.1: 30 days)."""
LEAST_S: Final = 3 * 86_400.0
"""Seconds of hearing before anything is called unusual."""
LONGEST_S: Final = 3_600.0
"""A value speaks for at most so long: it weighs by the time that passed since the one before."""
MOST: Final = 10.0
"""Z-scores are cut here; what lies beyond says only that the past was quiet."""


class NormState(Struct, frozen=True):
    """A `Norm` between two runs."""

    at: int
    heard_s: float
    weight: float
    mean: float
    variance: float


class Norm:
    """Mean and standard deviation of one quantity, exponentially forgotten, weighted by time."""

    def __init__(self, *, memory_s: float = MEMORY_S, least_s: float = LEAST_S) -> None:
        self._memory_s, self._least_s = memory_s, least_s
        self._at = 0
        self._heard_s = self._weight = self._mean = self._variance = 0.0

    def heard(self, at: int, value: float) -> None:
        """Take a value at `at` (ns); what is not finite or not later than the last is ignored."""
        if not isfinite(value) or (self._at and at <= self._at):
            return
        away = (at - self._at) / NS
        passed = min(away, LONGEST_S) if self._at else 1.0
        kept = exp(-away / self._memory_s) if self._at else 0.0
        self._at = at
        self._heard_s += passed
        before = self._weight * kept
        self._weight = before + passed
        share = passed / self._weight
        off = value - self._mean
        self._mean += share * off
        self._variance = (1.0 - share) * (self._variance + share * off * off)

    def z(self, value: float) -> float | None:
        """Standard deviations by which `value` is above the mean; None before there is a norm."""
        if not isfinite(value) or self._heard_s < self._least_s:
            return None
        off = value - self._mean
        spread = sqrt(max(self._variance, 0.0))
        if spread <= 1e-9 * abs(self._mean) or spread == 0.0:
            # A quantity that never moved: any move of it is as unusual as can be.
            return 0.0 if abs(off) <= 1e-9 * abs(self._mean) else (MOST if off > 0 else -MOST)
        return min(max(off / spread, -MOST), MOST)

    def quantile(self, value: float) -> float | None:
        """The share of the past that was lower, if it was normal; for exceedance quantiles."""
        z = self.z(value)
        return None if z is None else 0.5 + 0.5 * erf(z / sqrt(2.0))

    def state(self) -> NormState:
        """What a restart must not forget."""
        return NormState(self._at, self._heard_s, self._weight, self._mean, self._variance)

    def restore(self, state: NormState) -> None:
        """Take over a saved state.

        Raises:
            StateError: its numbers are not those of a norm.
        """
        numbers = (state.heard_s, state.weight, state.mean, state.variance)
        if not all(isfinite(x) for x in numbers):
            raise StateError("norm with numbers that are not finite")
        if state.variance < 0.0 or state.weight < 0.0 or state.heard_s < 0.0:
            raise StateError("norm with a negative variance or weight")
        self._at = state.at
        self._heard_s, self._weight = state.heard_s, state.weight
        self._mean, self._variance = state.mean, state.variance
