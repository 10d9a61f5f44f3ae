"""The label of model.md A12 on samples five minutes apart.

A sample is an onset when the price moved far enough since the sample before and open interest
fell in the same or the next sample. Moves that straddle two samples are not seen, so the count is a
lower bound. Liquidations are known by the hour at best, so the label does not ask for them.
What cannot be known is NaN.
"""

from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from monitor.backtest.history.files import SAMPLE_S
from monitor.core.forecast.label import TIERS, LabelRule
from monitor.events import HORIZONS_S

Floats = NDArray[np.float64]

AHEAD: Final = tuple(s // SAMPLE_S for s in HORIZONS_S)
"""The horizons in samples."""
MAJORS: Final = ("BTC", "ETH", "SOL")
"""Assets that are asked for the lesser move: those that the daemon watches unless told others."""
RULES: Final = {
    "T1": LabelRule(),
    "half": LabelRule(least_move=0.005, sigmas=3.0, tiers=(0.00375, 0.0075, 0.015)),
}
"""The public rule, and all its thresholds halved, of which there are enough to fit on."""


def rule_of(name: str, asset: str) -> LabelRule:
    """The rule as it holds for an asset: others than `MAJORS` have to move twice as far."""
    rule = RULES[name]
    return rule if asset in MAJORS else replace(rule, least_move=2.0 * rule.least_move)


def returns(price: Floats) -> Floats:
    """Log returns, NaN at the first sample and beside a missing one."""
    found: Floats = np.append(np.nan, np.diff(np.log(price)))
    return found


def usual(change: Floats, rule: LabelRule) -> Floats:
    """Standard deviation of a return that was usual before each sample; NaN before it is known."""
    memory, least = rule.memory_min * 60 / SAMPLE_S, rule.least_min * 60 / SAMPLE_S
    found = np.full(len(change), np.nan)
    variance, heard = 0.0, 0
    for i, square in enumerate((change * change).tolist()):
        if heard >= least:
            found[i] = variance**0.5
        if square == square:  # noqa: PLR0124 (NaN alone is not itself)
            heard += 1
            variance += max(1.0 / heard, 1.0 / memory) * (square - variance)
    return found


def onsets(price: Floats, interest: Floats, rule: LabelRule) -> Floats:
    """1 where a cascade of a tier began, 0 where none did, NaN where that is not known.

    Args:
        price: of the samples, shape (n,); NaN where missing.
        interest: open interest, base units; likewise.
        rule: thresholds of move, open interest and refractory time.

    Returns:
        Shape (n, directions, tiers).
    """
    change = returns(price)
    far = np.maximum(rule.sigmas * usual(change, rule), rule.least_move)
    after = np.append(interest[1:], np.nan)
    before = np.append(np.nan, interest[:-1])
    fall = 1.0 - np.fmin(interest, after) / before
    whole = np.isfinite(interest) & np.isfinite(after)
    found = np.zeros((len(price), 2, len(TIERS)))
    quiet = rule.refractory_min * 60 // SAMPLE_S
    for d, sign in enumerate((-1.0, 1.0)):
        # NaN compares false, so what is not known to be small may have been a move.
        may_move = ~(sign * change < rule.least_move) & ~(sign * change < far)
        moved = sign * change >= far
        for t, wanted in enumerate(rule.tiers):
            fell = fall >= wanted
            unknown = may_move & ~(fell & moved) & ~(whole & (fall < wanted))
            found[unknown, d, t] = np.nan
            last = -quiet - 1
            for i in np.flatnonzero(fell & moved).tolist():
                if i - last > quiet:
                    found[i, d, t] = 1.0
                    last = i
    return found


def ahead(onset: Floats, rule: LabelRule) -> Floats:
    """Whether an onset follows each sample within each horizon; NaN where that is not known.

    In the refractory time after an onset nothing is asked about its direction.

    Args:
        onset: of one tier, shape (n, directions).
        rule: for its refractory time.

    Returns:
        Shape (n, directions, horizons).
    """
    n = len(onset)
    found = np.full((n, 2, len(AHEAD)), np.nan)
    happened, unknown = (
        np.vstack((np.zeros((1, 2)), np.cumsum(x, axis=0))) for x in (onset == 1.0, np.isnan(onset))
    )
    for h, samples in enumerate(AHEAD):
        first = np.arange(1, n - samples + 1)
        some = happened[first + samples] - happened[first] > 0
        lost = unknown[first + samples] - unknown[first] > 0
        found[first - 1, :, h] = np.where(some, 1.0, np.where(lost, np.nan, 0.0))
    quiet = rule.refractory_min * 60 // SAMPLE_S
    for i, d in zip(*np.nonzero(onset == 1.0), strict=True):
        found[i : i + quiet, d] = np.nan
    return found
