"""How many liquidations are usual: the quantile that the label asks for (model.md A12)."""

from math import exp, inf, log
from typing import Final

BUCKETS: Final = 241
_PER_DECADE: Final = 20


def _bucket(usd: float) -> int:
    bucket = 0 if usd < 1.0 else 1 + int(log(usd) / log(10.0) * _PER_DECADE)
    return min(bucket, BUCKETS - 1)


class Usual:
    """Quantile of the five-minute sums of one side, from a histogram of 20 buckets a decade."""

    def __init__(self, memory_min: int) -> None:
        self._kept = exp(-1.0 / memory_min)
        self.counts = [0.0] * BUCKETS
        self.heard = 0

    def add(self, usd: float) -> None:
        """Count one sum."""
        self.counts = [c * self._kept for c in self.counts]
        self.counts[_bucket(usd)] += 1.0
        self.heard += 1

    def above(self, usd: float) -> float:
        """How many sums, faded, were surely larger: those in buckets above its own."""
        return sum(self.counts[_bucket(usd) + 1 :])

    def quantile(self, q: float) -> float:
        """Lower edge in USD of the bucket that holds the quantile."""
        wanted, passed = q * sum(self.counts), 0.0
        for i, count in enumerate(self.counts):
            passed += count
            if passed >= wanted:
                return 0.0 if i == 0 else 10.0 ** ((i - 1) / _PER_DECADE)
        return inf
