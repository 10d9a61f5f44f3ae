"""Losses of forecasts, summed and faded, and whether one forecaster is worse than another.

Forecasts overlap and events of a day are one cluster, so evidence is counted in UTC days: whether
one forecaster is worse than another is asked of the daily means of their log scores.
"""

from math import log, sqrt
from typing import Final

from msgspec import Struct

HALF_LIFE_DAYS: Final = 30.0
ENOUGH_DAYS: Final = 14.0
"""UTC days, faded, before a skill is believed."""
DOUBT: Final = 1.64
"""Standard errors by which a daily mean must be worse: one in twenty by chance."""
FLOOR: Final = 1e-6
"""Probabilities are clipped here and at 1 - 1e-6 before their logarithm is taken."""


def brier(probability: float, outcome: bool) -> float:  # noqa: FBT001  the outcome is the datum
    """Squared error of a probability."""
    return (probability - outcome) ** 2


def log_loss(probability: float, outcome: bool) -> float:  # noqa: FBT001  the outcome is the datum
    """Surprise in nats, with probabilities kept off 0 and 1."""
    kept = min(max(probability, FLOOR), 1 - FLOOR)
    return -log(kept if outcome else 1 - kept)


class Sums(Struct):
    """Faded sums over the forecasts that were given the same comparison."""

    count: float = 0.0
    said: float = 0.0
    brier: float = 0.0
    log: float = 0.0
    other_brier: float = 0.0
    other_log: float = 0.0

    def add(self, p: float, other: float, *, outcome: bool) -> None:
        """Count one forecast beside the other forecaster's."""
        self.count += 1
        self.said += p
        self.brier += brier(p, outcome)
        self.log += log_loss(p, outcome)
        self.other_brier += brier(other, outcome)
        self.other_log += log_loss(other, outcome)

    def fade(self, by: float) -> None:
        """Weigh the past less."""
        self.count *= by
        self.said *= by
        self.brier *= by
        self.log *= by
        self.other_brier *= by
        self.other_log *= by


class Days(Struct):
    """Daily means of a difference of log scores, faded; positive days are worse ones."""

    day: int = -1
    today: float = 0.0
    counted: int = 0
    weight: float = 0.0
    squares: float = 0.0
    total: float = 0.0
    total_squares: float = 0.0

    def add(self, day: int, difference: float) -> None:
        """Count one forecast's difference on its UTC day; days come in order."""
        if day != self.day:
            self._close(day)
        self.today += difference
        self.counted += 1

    def _close(self, day: int) -> None:
        by = 0.5 ** ((day - self.day) / HALF_LIFE_DAYS) if self.day >= 0 else 1.0
        if self.counted:
            mean = self.today / self.counted
            self.weight += 1
            self.squares += 1
            self.total += mean
            self.total_squares += mean * mean
        self.weight *= by
        self.squares *= by * by
        self.total *= by
        self.total_squares *= by
        self.day, self.today, self.counted = day, 0.0, 0

    def effective(self) -> float:
        """How many equally weighted days the closed ones are worth."""
        return self.weight**2 / self.squares if self.squares > 0 else 0.0

    def is_worse(self) -> bool:
        """Whether the mean is above 0 by more than chance, on enough days."""
        days = self.effective()
        if days < ENOUGH_DAYS:
            return False
        mean = self.total / self.weight
        variance = max(0.0, self.total_squares / self.weight - mean * mean)
        return mean > DOUBT * sqrt(variance / (days - 1)) and mean > 0

    def is_better(self) -> bool:
        """Whether the mean is below 0."""
        return self.total < 0
