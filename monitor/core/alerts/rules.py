"""Every threshold of phases and alerts, and the phases by rank."""

from typing import Final

from msgspec import Struct

from monitor.events import Phase, Severity

RISK: Final[tuple[Phase, ...]] = ("calm", "watch", "warning", "critical")
"""The phases that a forecast reaches, by rank."""
WARNING, CRITICAL = 2, 3
SEVERITY: Final[dict[Phase, Severity]] = {
    "calm": "info",
    "watch": "info",
    "warning": "warning",
    "critical": "critical",
    "cascading": "critical",
    "exhausted": "warning",
}

BY_RULE: Final = ("hysteresis: ", "hold: ", "cascade: ", "exhausted: ")
"""Beginnings of what is told as holding a phase where that is a rule and not a missing input."""


SHOCK_GAIN: Final = 6.0
"""Loop gain below which a critical shock is within the error of map and depth."""


class AlertRules(Struct, frozen=True):
    """Every threshold; Prometheus rules and dashboards use the same numbers.

    Attributes:
        watch_score, warning_score, critical_score: a score from which the phase is entered, 0 to 1
            (model.md A12: high, severe, critical; 2.3, 6.5 and 18 % in 15 minutes).
        leave_margin: how far below its threshold the score must be before a phase is left.
        watch_shock, warning_shock: a critical shock, in normal moves of 15 minutes, up to which
            the phase is entered. Where there is a score it has counted the shock already, and the
            shock alone reaches no more than ``watch``.
        shock_gain: the loop gain without which a critical shock, however near, enters no phase. It
            is the mean over what is uncertain: a sixth of the fuel, or six times the depth, would
            leave a mean of 1, and neither is known much better than that.
        shock_slack: the shock must be larger, or the gain smaller, by this factor before a phase
            is left.
        hold_s: how long evidence must lie below a phase before it steps down by one.
        cascade_rate: printed liquidations of 60 s over their normal that count as a cascade's.
        cascade_usd: the same in USD, so that two prints in a dead market do not.
        cascade_sigma, cascade_move: the move of 60 or 300 s that must come with them, in standard
            deviations and as a ratio; below the label's 6 and 1 % (A12), which are its end.
        rebound_s: for so long after the other side's cascade was last seen, a move that stays
            short of where that began (by `cascade_move` beyond it) is its retracement and no
            cascade; half an hour, as the label's refractory time.
        rebound_share: unless the liquidations of 60 s reach this share of the other side's peak:
            then those who entered on the way are an event of their own.
        absorbed_rate: liquidations over their peak, at most, in a market that absorbs.
        absorbed_depth: depth over that of before the shock, at least.
        absorbed_extreme_s: time since the last new extreme, at least.
        absorbed_s: how long all of it must hold before ``exhausted`` is declared.
        exhausted_s: how long ``exhausted`` stands before it gives way to the forecast.
        warning_budget, critical_budget: false alarms of an asset in a UTC day, both directions,
            after which the threshold rises.
        budget_margin: by how much it rises until midnight.
        unknown_s: how long inputs may be unusable before the phase is declared unknown.
        gap_s: a longer silence between two publications is not counted as time that passed.
        observe_s: alerts are silent for so long after the start. 0: a restart in the middle of a
            crash must not be silent.
        quality_raise_s, quality_clear_s: how long a fault must hold, and be gone.
    """

    watch_score: float = 0.4
    warning_score: float = 0.6
    critical_score: float = 0.8
    leave_margin: float = 0.1
    watch_shock: float = 1.5
    warning_shock: float = 1.0
    shock_gain: float = SHOCK_GAIN
    shock_slack: float = 1.25
    hold_s: float = 600.0
    cascade_rate: float = 10.0
    cascade_usd: float = 250_000.0
    cascade_sigma: float = 4.0
    cascade_move: float = 0.005
    rebound_s: float = 1800.0
    rebound_share: float = 0.25
    absorbed_rate: float = 0.1
    absorbed_depth: float = 0.5
    absorbed_extreme_s: float = 180.0
    absorbed_s: float = 120.0
    exhausted_s: float = 900.0
    warning_budget: int = 4
    critical_budget: int = 1
    budget_margin: float = 0.1
    unknown_s: float = 600.0
    gap_s: float = 30.0
    observe_s: float = 0.0
    quality_raise_s: float = 30.0
    quality_clear_s: float = 120.0
