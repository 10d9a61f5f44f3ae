"""What a forecast is made from: the inputs of the logit, as they are and as it takes them.

Mathematics: model.md A12. Unknown is None, never 0, and an infinite ratio is as bad as its bound.
"""

from math import exp, isnan, log, log1p
from typing import Final, TypeAlias

from msgspec import Struct

PerHorizon: TypeAlias = tuple[float, float, float]
"""One number for each of `HORIZONS_S`."""

INPUTS: Final = (
    "structural",
    "passage",
    "sigma_fast",
    "sigma_slow",
    "depth",
    "refill",
    "gain",
    "fuel",
    "funding",
    "interest",
    "endogeneity",
    "prints",
    "contagion",
    "plumbing",
)
"""Order of the coefficients: the twelve inputs of A12, and `passage` and `prints` of B5."""

BASELINE_INPUTS: Final = (
    "passage",
    "sigma_fast",
    "sigma_slow",
    "depth",
    "funding",
    "interest",
    "endogeneity",
    "prints",
)
"""What model.md C2's B5 may use: volatility, open interest, funding, depth and prints."""

RISING: Final = ("structural", "passage", "gain", "fuel")
"""Inputs whose coefficients are at least 0, so that more of them never lowers a probability."""
FALLING: Final = ("depth", "refill")
"""Inputs whose coefficients are at most 0."""

_LEAST_P: Final = 1e-9
SURE: Final = 0.999
"""A solver is believed no further than this, nor below its complement: what it calls certain is so
within its own assumptions, and 0.999 and 1 - 1e-9 would be as far apart as 0.001 and 0.999."""
_Z: Final = 6.0


class Features(Struct, frozen=True):
    """Inputs for one asset and direction; None where not known, never 0.

    Attributes:
        structural: P_struct per horizon (`passage.structural`), 0 to 1.
        passage: per horizon, first passage of the label's own threshold; knows no map.
        sigma_fast: volatility forecast over 5 minutes, per root second.
        sigma_slow: volatility over a day, per root second.
        depth: depth within 1 % in the direction over its usual value for the hour.
        refill: absorbed fraction rho_R (A7), 0 to 0.9.
        gain: largest finite-difference loop gain along the path (A8).
        fuel: F = Lambda(2 sigma) / (W D(2 sigma)), forced USD over absorbable USD.
        funding: z-score of funding or carry, positive when the side at risk pays.
        interest: z-score of open interest.
        endogeneity: Hawkes branching ratio less its own 30-day median (A11).
        prints: corrected liquidations of the side at risk in 5 minutes over their usual value.
        contagion: spectral radius of the contagion matrix (A9).
        plumbing: worst exceedance quantile of mark gap, lag, backlog and depeg, 0 to 1.
    """

    structural: PerHorizon | None = None
    passage: PerHorizon | None = None
    sigma_fast: float | None = None
    sigma_slow: float | None = None
    depth: float | None = None
    refill: float | None = None
    gain: float | None = None
    fuel: float | None = None
    funding: float | None = None
    interest: float | None = None
    endogeneity: float | None = None
    prints: float | None = None
    contagion: float | None = None
    plumbing: float | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the inputs that are not known."""
        return tuple(n for n, v in zip(INPUTS, self.vector(), strict=True) if v is None)

    def vector(self) -> list[PerHorizon | None]:
        """Inputs as the logit takes them, in the order of `INPUTS`; what is not finite is None."""
        return [
            _logits(self.structural, SURE),
            _logits(self.passage, 1.0),
            _logarithm(self.sigma_fast, 1e-9, 1.0),
            _logarithm(self.sigma_slow, 1e-9, 1.0),
            _logarithm(self.depth, 1e-3, 1e3),
            _plain(self.refill, 0.0, 1.0),
            _logarithm(self.gain, 1e-2, 1e2),
            _log_more(self.fuel),
            _plain(self.funding, -_Z, _Z),
            _plain(self.interest, -_Z, _Z),
            _plain(self.endogeneity, -1.0, 1.0),
            _log_more(self.prints),
            _plain(self.contagion, 0.0, 10.0),
            _plain(self.plumbing, 0.0, 1.0),
        ]


def _plain(value: float | None, low: float, high: float) -> PerHorizon | None:
    # An infinite ratio is as bad as its bound; only NaN says nothing.
    if value is None or isnan(value):
        return None
    found = min(max(value, low), high)
    return found, found, found


def _logarithm(value: float | None, low: float, high: float) -> PerHorizon | None:
    bounded = _plain(value, low, high)
    if bounded is None:
        return None
    found = log(bounded[0])
    return found, found, found


def _log_more(value: float | None) -> PerHorizon | None:
    bounded = _plain(value, 0.0, 1e6)
    if bounded is None:
        return None
    found = log1p(bounded[0])
    return found, found, found


def _logits(values: PerHorizon | None, most: float) -> PerHorizon | None:
    if values is None or any(isnan(p) for p in values):
        return None
    found = [logit(min(max(p, 1.0 - most), most)) for p in values]
    return found[0], found[1], found[2]


def logit(p: float) -> float:
    """Log odds of `p`, which is kept off 0 and 1 by 1e-9."""
    p = min(max(p, _LEAST_P), 1.0 - _LEAST_P)
    return log(p / (1.0 - p))


def logistic(odds: float) -> float:
    """Probability with these log odds."""
    if odds >= 0.0:
        return 1.0 / (1.0 + exp(-odds))
    grown = exp(max(odds, -700.0))
    return grown / (1.0 + grown)
