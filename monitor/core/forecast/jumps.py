"""How often a price jumps, and how far (model.md A10)."""

from math import exp, sqrt
from typing import Final

_DAY_MINUTES: Final = 1_440


class Jumps:
    """Rate and size of jumps: one-minute returns beyond 4.5 usual standard deviations.

    Exceedances of an exponential size beyond any threshold are exponential with the same mean, so
    their mean excess is the size, and their rate is extrapolated to all jumps from the threshold.
    Shrunk to a prior (2 a day, 0.3 %; a judgement), forgotten over two weeks.
    """

    THRESHOLD: Final = 4.5
    PRIOR_MINUTES: Final = 2.0 * _DAY_MINUTES
    PRIOR_JUMPS: Final = 4.0
    PRIOR_SIZE: Final = 0.003
    KEPT: Final = exp(-1.0 / (14 * _DAY_MINUTES))
    NUMBERS: Final = ("minutes", "jumps", "excess", "thresholds")

    def __init__(self) -> None:
        self.minutes = self.jumps = self.excess = self.thresholds = 0.0

    def heard(self, change: float, variance: float) -> None:
        """Take a one-minute log return and the variance per second of the hour before it."""
        threshold = self.THRESHOLD * sqrt(variance * 60.0)
        for name in self.NUMBERS:
            setattr(self, name, getattr(self, name) * self.KEPT)
        self.minutes += 1.0
        self.thresholds += threshold
        if abs(change) > threshold:
            self.jumps += 1.0
            self.excess += abs(change) - threshold

    @property
    def size(self) -> float:
        """Mean log size."""
        return (self.excess + self.PRIOR_JUMPS * self.PRIOR_SIZE) / (self.jumps + self.PRIOR_JUMPS)

    @property
    def rate(self) -> float:
        """Jumps of any size per second, both ways."""
        beyond = (self.jumps + self.PRIOR_JUMPS) / (self.minutes + self.PRIOR_MINUTES) / 60.0
        threshold = self.thresholds / self.minutes if self.minutes else 0.0
        return beyond * exp(min(threshold / self.size, 3.0))
