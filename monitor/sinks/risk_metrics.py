"""What Prometheus reads of the risk: map, mechanism, forecast, phases and track record.

A value that is unknown or stale is absent. What is declared here is documented in
`docs/metrics.md`, row by row.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, get_args

from monitor.core.alerts.rules import BY_RULE
from monitor.core.conditions import DIRECTIONS
from monitor.core.forecast.past import VOLATILITY_HORIZONS_S
from monitor.core.forecast.unseen import WHY
from monitor.core.heatmap.calibration import print_ratio
from monitor.core.risk import Outlook
from monitor.events import HORIZONS_S, Direction, DirectionRisk, Phase, Risk
from monitor.sinks.families import BANDS, Row, counter, gauge
from monitor.sinks.quantity_metrics import quantity_rows

if TYPE_CHECKING:
    from monitor.sinks.metrics import View

PHASES: Final = get_args(Phase)
HORIZON: Final = {60: "1m", 300: "5m", 900: "15m", 3600: "1h"}
"""Labels of horizons in seconds."""

_OF: Final = ("asset", "direction")

_AT_RISK = gauge(
    "at_risk_usd",
    "USD force-closed if the mark moved by the band: longs down, shorts up; an estimate.",
    "asset",
    "direction",
    "band",
)
_COVERAGE = gauge(
    "coverage_ratio", "Share of the open interest that stands on the liquidation map.", "asset"
)
_MAP_CONFIDENCE = gauge(
    "heatmap_confidence_ratio",
    "How far the liquidation map can be trusted: fresh, covered, heard and calibrated.",
    "asset",
)
_EXPECTED = counter(
    "expected_liquidations_usd",
    "Forced closes that the map expected where the mark passed; of venues that print theirs.",
    "venue",
    "asset",
    "side",
)
_OBSERVED = counter(
    "observed_liquidations_usd",
    "Forced closes printed by these venues, corrected for throttled feeds.",
    "venue",
    "asset",
    "side",
)
_STATE_REFUSED = gauge(
    "state_refused", "Saved states that could not be used at the start, by instrument or asset."
)
_SCORE = gauge("risk_score_ratio", "0 in an ordinary minute, 1 at even odds of a cascade.", *_OF)
_PROBABILITY = gauge(
    "probability_ratio", "Chance of a cascade within the horizon, as published.", *_OF, "horizon"
)
_BASELINE = gauge(
    "baseline_probability_ratio", "The same by the model without the map.", *_OF, "horizon"
)
_GAIN = gauge("loop_gain_ratio", "Forced flow that a forced dollar causes, at its largest.", *_OF)
_SHOCK = gauge(
    "critical_shock_ratio",
    "Smallest move that would run by itself; absent when none is found within reach.",
    *_OF,
)
_SHOCK_USD = gauge("critical_shock_usd", "Smallest sale or purchase that would.", *_OF)
_AMPLIFICATION = gauge(
    "amplification_ratio", "How much farther a move of two standard deviations would go.", *_OF
)
_JUMP = gauge("expected_jump_ratio", "How far the price would run, if it ran.", *_OF)
_BURNT = gauge("expected_liquidated_usd", "What would be force-closed on that run.", *_OF)
_SUPERCRITICAL = gauge(
    "supercritical_share_ratio", "Share of the next 5 % where the loop gain exceeds 1.", *_OF
)
_NORMAL = gauge("depth_normal_ratio", "Depth within 1 % over its usual value at this hour.", *_OF)
_REFILL = gauge("refill_usd_per_second", "What makers add less what they withdraw.", *_OF)
_PSI = gauge("follow_on_ratio", "Flow that hits the book for each forced dollar.", *_OF)
_COMPONENT = gauge("component_ratio", "Components of the risk, 0 to 1.", *_OF, "component")
_PHASE = gauge("phase", "1 for the phase that stands; none while it is unknown.", *_OF, "phase")
_ABSTAINING = gauge("abstaining", "1 while the forecast of 15 minutes is not stood by.", *_OF)
_HELD = gauge("phase_held", "1 while the phase cannot step down for want of inputs.", *_OF)
_ALERTS = counter("alerts", "Times a phase was entered.", *_OF, "phase")
_CONFIDENCE = gauge("confidence_ratio", "How far the forecast can be trusted.", "asset")
_QUALITY = gauge("quality_ratio", "Share of the inputs that are heard.", "asset")
_FAULTS = gauge("faults", "Faults of the inputs that stand.", "asset")
_FORECAST_VOLATILITY = gauge(
    "volatility_forecast_ratio", "Volatility forecast over the horizon.", "asset", "horizon"
)
_CONTAGION = gauge(
    "contagion_radius_ratio", "From 1 on the assets would pull each other down.", "direction"
)
_MAP_PRINT = gauge(
    "map_print_ratio", "Forced closes printed over those that the map expected.", *_OF
)

_RESOLVED = counter("forecasts_resolved", "Forecasts that were graded.", *_OF, "horizon")
_UNGRADED = counter(
    "forecasts_ungraded",
    "Forecasts that cannot be graded, over all assets.",
    "horizon",
    "reason",
)
_BRIER_SKILL = gauge(
    "forecast_brier_skill_ratio", "Brier skill against climatology.", *_OF, "horizon"
)
_LOG_SKILL = gauge("forecast_log_skill_ratio", "Log skill against climatology.", *_OF, "horizon")
_MAP_SKILL = gauge(
    "forecast_map_skill_ratio", "Log skill of the map against the no-map baseline.", *_OF, "horizon"
)
_PREDICTED = gauge(
    "forecast_predicted_ratio", "Mean forecast of a reliability bin.", "horizon", "bin"
)
_RELIABILITY = gauge(
    "forecast_reliability_ratio", "How often it came true, by reliability bin.", "horizon", "bin"
)
_PRECISION = gauge("alert_precision_ratio", "Share of the alarms that were right.", *_OF)
_RECALL = gauge("alert_recall_ratio", "Share of the cascades that an alarm preceded.", *_OF)
_LEAD = gauge("alert_lead_seconds", "Median time from an alarm to its cascade.", *_OF)
_FALSE_ALARMS = gauge("false_alarms_per_day_ratio", "False alarms per watched day.", *_OF)


def risk_rows(view: "View") -> Iterator[Row]:
    """Everything about risk that is known now."""
    yield from _heatmap_rows(view)
    for direction, radius in view.engine.contagion.items():
        yield _CONTAGION, (direction,), radius
    for name, asset in view.engine.assets.items():
        risk = view.risk(name)
        yield from _asset_rows(name, risk)
        known = {d.direction: d for d in risk.directions} if risk is not None else {}
        for direction in DIRECTIONS:
            yield from _direction_rows(name, direction, known.get(direction))
            for phase in PHASES:
                yield _ALERTS, (name, direction, phase), asset.entered[direction, phase]
            yield from _record_rows((name, direction), asset.outlooks[direction])
    yield from _ungraded_rows(view)
    yield from _reliability_rows(view)
    yield from quantity_rows(view)


def _asset_rows(name: str, risk: Risk | None) -> Iterator[Row]:
    if risk is None:
        return
    yield _CONFIDENCE, (name,), risk.confidence
    yield _QUALITY, (name,), risk.quality
    yield _FAULTS, (name,), len(risk.faults)
    for seconds in VOLATILITY_HORIZONS_S if risk.volatility is not None else ():
        assert risk.volatility is not None, "checked above"
        yield _FORECAST_VOLATILITY, (name, HORIZON[seconds]), risk.volatility[seconds]


def _direction_rows(name: str, direction: Direction, risk: DirectionRisk | None) -> Iterator[Row]:
    of = (name, direction)
    # Whoever cannot be heard stands by nothing.
    yield _ABSTAINING, of, risk is None or bool(risk.abstaining)
    if risk is None:
        return
    yield _HELD, of, risk.held != "" and not risk.held.startswith(BY_RULE)
    if risk.phase != "unknown":
        for phase in PHASES:
            yield _PHASE, (*of, phase), phase == risk.phase
    for p in risk.probabilities:
        if p.ratio is not None:
            yield _PROBABILITY, (*of, HORIZON[p.horizon_s]), p.ratio
        if p.baseline is not None:
            yield _BASELINE, (*of, HORIZON[p.horizon_s]), p.baseline
    for component, value in risk.components.items():
        if value is not None:
            yield _COMPONENT, (*of, component), value
    m = risk.mechanism
    known = [
        (_SCORE, risk.score),
        (_NORMAL, risk.depth_ratio),
        (_REFILL, risk.refill_usd_s),
    ]
    if m is not None:
        known += [
            (_GAIN, m.loop_gain),
            (_SHOCK, m.critical_shock),
            (_SHOCK_USD, m.critical_usd),
            (_AMPLIFICATION, m.amplification),
            (_JUMP, None if m.jump is None else m.jump.mean),
            (_BURNT, None if m.liquidated_usd is None else m.liquidated_usd.mean),
            (_SUPERCRITICAL, m.supercritical_share),
            (_PSI, m.psi),
        ]
    for family, value in known:
        if value is not None:
            yield family, of, value


def _record_rows(of: tuple[str, Direction], outlook: Outlook) -> Iterator[Row]:
    for seconds, card in outlook.cards.items():
        labels = (*of, HORIZON[seconds])
        skill = card.skill()
        yield _RESOLVED, labels, skill.matured
        for family, value in (
            (_BRIER_SKILL, skill.brier_skill),
            (_LOG_SKILL, skill.log_skill),
            (_MAP_SKILL, skill.map_log_skill),
        ):
            if value is not None:
                yield family, labels, value
    score = outlook.alarms.score()
    for family, value in (
        (_PRECISION, score.precision),
        (_RECALL, score.recall),
        (_LEAD, score.lead_median_s),
        (_FALSE_ALARMS, score.false_alarms_per_day),
    ):
        if value is not None:
            yield family, of, value


def _ungraded_rows(view: "View") -> Iterator[Row]:
    outlooks = [o for asset in view.engine.assets.values() for o in asset.outlooks.values()]
    for seconds in HORIZONS_S:
        counts = [outlook.cards[seconds].ungraded for outlook in outlooks]
        for reason in WHY:
            yield _UNGRADED, (HORIZON[seconds], reason), sum(count[reason] for count in counts)


def _reliability_rows(view: "View") -> Iterator[Row]:
    """Reliability over all assets and both directions, which none has enough events for alone."""
    outlooks = [o for asset in view.engine.assets.values() for o in asset.outlooks.values()]
    for seconds in HORIZONS_S:
        bins: dict[str, list[float]] = {}
        for outlook in outlooks:
            for row in outlook.cards[seconds].skill().reliability:
                if row.forecast is None or row.observed is None:
                    continue
                found = bins.setdefault(f"{row.low:g}", [0.0, 0.0, 0.0])
                found[0] += row.count
                found[1] += row.count * row.forecast
                found[2] += row.count * row.observed
        for low, (count, said, seen) in bins.items():
            if count > 0.0:
                yield _PREDICTED, (HORIZON[seconds], low), said / count
                yield _RELIABILITY, (HORIZON[seconds], low), seen / count


def _heatmap_rows(view: "View") -> Iterator[Row]:
    yield _STATE_REFUSED, (), len(view.engine.refused)
    for asset in view.engine.assets:
        heatmap = view.heatmap(asset)
        if heatmap is None:
            continue
        for risk in heatmap.at_risk:
            yield _AT_RISK, (asset, "down", BANDS[risk.distance]), risk.long_usd
            yield _AT_RISK, (asset, "up", BANDS[risk.distance]), risk.short_usd
        yield _COVERAGE, (asset,), heatmap.coverage
        yield _MAP_CONFIDENCE, (asset,), heatmap.confidence
    for venue, asset, states in view.pools():
        maps = [state.map for state in states if state.map is not None]
        for index, side in enumerate(("long", "short")):
            yield _EXPECTED, (venue, asset, side), sum(m.expected_usd[index] for m in maps)
            yield _OBSERVED, (venue, asset, side), sum(m.observed_usd[index] for m in maps)
    for asset, state in view.engine.assets.items():
        maps = [s.map for s in state.instruments if s.map is not None]
        for index, direction in enumerate(DIRECTIONS):
            ratio = print_ratio(
                sum(m.expected_usd[index] for m in maps),
                sum(m.observed_usd[index] for m in maps),
                max((m.print_usd for m in maps if m.prints), default=0.0),
            )
            if ratio is not None:
                yield _MAP_PRINT, (asset, direction), ratio
