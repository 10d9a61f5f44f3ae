"""Whether the market is in an unquiet state: a filter of two states (model.md D, "Regime change").

Once a minute it hears two figures: the log of present over usual volatility, and that of present
over usual depth. The states' means and spreads are judgements, stated below.
"""

from math import exp, isfinite
from typing import Final

VOLATILITY: Final = ((0.0, 0.35), (0.8, 0.5))
"""Mean and standard deviation of ln(sigma_5m / sigma_day) while calm, and while turbulent."""

DEPTH: Final = ((0.0, 0.2), (-0.35, 0.4))
"""The same of ln(depth / usual depth)."""

ENTER: Final = 1.0 / 240.0
LEAVE: Final = 1.0 / 30.0
"""Chance per minute that turbulence begins: every four hours; and that it ends: half an hour."""

LEAST: Final = 1e-6
_FAR: Final = 6.0


class Regime:
    """Probability of turbulence; None before the first minute heard."""

    def __init__(self) -> None:
        self.turbulent: float | None = None

    def minute(self, volatility: float, depth: float | None) -> None:
        """Take one minute's logarithms; depth is left out where it is not known."""
        if not isfinite(volatility):
            return
        before = ENTER / (ENTER + LEAVE) if self.turbulent is None else self.turbulent
        ahead = before * (1.0 - LEAVE) + (1.0 - before) * ENTER
        calm, wild = (_density(volatility, *VOLATILITY[state]) for state in (0, 1))
        if depth is not None and isfinite(depth):
            calm *= _density(depth, *DEPTH[0])
            wild *= _density(depth, *DEPTH[1])
        odds = ahead * wild
        found = odds / (odds + (1.0 - ahead) * calm)
        self.turbulent = min(max(found, LEAST), 1.0 - LEAST)


def _density(value: float, mean: float, spread: float) -> float:
    # Cut off, so that two impossible states never make 0 / 0.
    z = min(abs(value - mean) / spread, _FAR)
    return exp(-0.5 * z * z) / spread
