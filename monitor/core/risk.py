"""The risk of one asset in one direction: how fragile, how far, how large, how likely, and why.

`Outlook` puts depth against fuel, finds the critical points over what is uncertain in both, turns
them into probabilities, phases and reasons, and has its own forecasts graded.
"""

from math import exp, log, sqrt
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.alerts.budget import Budget
from monitor.core.alerts.phases import Phases, PhasesState
from monitor.core.alerts.reasons import Burst, Evidence, Picture, Unheard, ranked
from monitor.core.alerts.rules import RISK, WARNING, AlertRules
from monitor.core.cascade.curves import DISTANCES, Floats
from monitor.core.cascade.impact import stop_of_requote
from monitor.core.cascade.loop import (
    GAIN_CAP,
    Folds,
    as_distance,
    as_ratio,
    gain_window,
    severity,
    solve,
)
from monitor.core.conditions import SIGN, Conditions
from monitor.core.depth.supply import Curve
from monitor.core.depth.survival import absorbed
from monitor.core.forecast.alarms import AlarmRecord, AlarmState
from monitor.core.forecast.coefficients import LABEL_SIGMAS
from monitor.core.forecast.components import components
from monitor.core.forecast.features import Features, PerHorizon
from monitor.core.forecast.label import LabelRule, Tier, Verdict
from monitor.core.forecast.model import Forecaster, HeldState, Model, confidence, score
from monitor.core.forecast.passage import first_passage, structural
from monitor.core.forecast.scorecard import Decided, Scorecard, ScorecardState
from monitor.core.forecast.volatility import Forecast as Volatility
from monitor.events import (
    HORIZONS_S,
    NS,
    Alert,
    Direction,
    DirectionRisk,
    Forecast,
    ForecastVerdict,
    Mechanism,
    Probability,
    Range,
)

LABEL: Final = LabelRule()
TIER: Final[Tier] = 1
"""Tier of the label that forecasts are graded by."""

SCALE_NODES: Final = (-sqrt(3.0), 0.0, sqrt(3.0))
SCALE_WEIGHTS: Final[Floats] = np.array([1.0, 4.0, 1.0]) / 6.0
"""Gauss-Hermite over the level of the map, which is lognormal."""

MIDDLE_W: Final = 1
"""Index of the median node of survival."""

USUAL_W: Final = 0.5
"""Survival at which one number has to stand for all: the median of the nodes (A7)."""

HEADLINE: Final = 1
"""The horizon that the score is about, 15 minutes."""

_TAU: Final[Floats] = np.array(HORIZONS_S, dtype=np.float64)


class Situation(Struct, frozen=True, kw_only=True):
    """What an outlook is formed on. None is unknown.

    Attributes:
        at: now (ns).
        depth: all believed books together, in the direction.
        fuel: forced closes by distance, as `monitor.core.cascade.curves` defines curves.
        level_sd: log standard deviation of the map's level.
        interest_usd: open interest of the instruments on the map; no more can be closed.
        map_confidence, coverage: of the pooled map.
        quality: share of the inputs that are heard.
        contagion: spectral radius over all assets.
        stale: why the inputs do not show the present, or None.
        missing: venues whose inputs are not heard.
        unheard: the inputs that are not.
        venue_fuel: share of the fuel by venue.
        opposite: the other direction's cascade, where it is not long over.
    """

    at: int
    mark: float | None
    volatility: Volatility | None
    depth: Curve | None
    fuel: Floats | None
    level_sd: float
    interest_usd: float
    map_confidence: float | None
    coverage: float | None
    quality: float
    contagion: float | None
    stale: str | None
    missing: tuple[str, ...]
    unheard: tuple[Unheard, ...]
    venue_fuel: tuple[tuple[str, float], ...]
    opposite: Burst | None = None


class Chain(Struct, frozen=True):
    """The mechanism as solved: critical points, chance of reaching them, and what follows.

    `critical` has the median critical move, sale and landing; None where most nodes have none.
    `gain` is the loop gain, the mean of the nodes.
    """

    folds: Folds
    weights: Floats
    critical: tuple[float, float, float | None] | None
    reached: PerHorizon
    gain: float
    fuel_ratio: float | None
    psi: float


class Said(Struct, frozen=True):
    """What is forecast, by whom, and how far it is stood by."""

    published: tuple[float | None, ...]
    score: float | None
    confidence: float
    abstaining: str


class OutlookState(Struct, frozen=True):
    """What outlives a restart."""

    held: HeldState
    phases: PhasesState
    cards: list[ScorecardState]
    alarms: AlarmState
    rival: AlarmState
    decided: list[int]


class Outlook:
    """One direction of one asset.

    Attributes:
        cards: what became of its forecasts, by horizon in seconds.
        alarms: what became of its alarms; `rival` is the same of the no-map baseline's score.
        features: what the last forecast was made from.
    """

    def __init__(
        self, asset: str, direction: Direction, *, model: Model, rules: AlertRules, budget: Budget
    ) -> None:
        """`budget` is shared by both directions."""
        self._asset, self._direction, self._rules = asset, direction, rules
        self._model = model
        self._forecaster = Forecaster(model)
        self._phases = Phases(asset, direction, rules=rules, budget=budget)
        self.cards = {h: Scorecard(asset, direction, h) for h in HORIZONS_S}
        self.alarms = AlarmRecord(asset, direction)
        self.rival = AlarmRecord(asset, direction)
        self._decided = Decided()
        self._latest: tuple[PerHorizon | None, PerHorizon] | None = None
        self.features = Features()

    # ------------------------------------------------------------------------------- outlook

    def burst(self, at: int) -> Burst | None:
        """This direction's cascade, as of the last update, where it is not long over."""
        return self._phases.burst(at)

    def update(
        self, now: Situation, conditions: Conditions
    ) -> tuple[DirectionRisk, float, list[Alert]]:
        """Form the outlook: the risk, the confidence in it, and the alerts that follow."""
        at = now.at
        chain = self._chain(now, conditions)
        printed = conditions.liquidated_usd(at, self._direction)
        features = self.features = self._features(now, chain, conditions, printed)
        forecast = self._forecaster.forecast(at, features)
        p_map = forecast.map if chain is not None else None
        # What is stale is held by the phase; nothing new is said from it.
        known = now.volatility is not None and now.stale is None
        p_baseline = forecast.baseline if known else None
        self._latest = (p_map, forecast.baseline) if known else None
        said = self._said(now, p_map, p_baseline, forecast.completeness)
        evidence = self._evidence(
            now, chain, conditions, said, depth_ratio=features.depth, printed=printed
        )
        picture = Picture(
            gain_stretch=None
            if chain is None or now.mark is None or evidence.loop_gain is None
            else _stretch(now.mark, chain.folds, self._direction),
            gain_capped=chain is not None and bool((chain.folds.gain >= GAIN_CAP).any()),
            venue_fuel=now.venue_fuel,
            unheard=now.unheard,
        )
        alerts = self._phases.step(evidence, picture)
        standing = self._phases.standing()
        self.alarms.step(at, is_alarm=_is_alarm(standing.phase))
        rival = None if p_baseline is None else score(p_baseline[1], self._model.base[HEADLINE])
        self.rival.step(at, is_alarm=rival is not None and rival >= self._rules.warning_score)
        parts = components(features)
        risk = DirectionRisk(
            direction=self._direction,
            phase=standing.shown,
            phase_age_s=max(0, at - standing.since) / NS,
            alert=standing.id,
            held=standing.held,
            abstaining=said.abstaining,
            silent=standing.silent,
            score=said.score,
            using=self.cards[HORIZONS_S[HEADLINE]].using,
            probabilities=[
                Probability(
                    horizon_s=h,
                    ratio=said.published[i],
                    map=None if p_map is None else p_map[i],
                    baseline=None if p_baseline is None else p_baseline[i],
                )
                for i, h in enumerate(HORIZONS_S)
            ],
            mechanism=self._mechanism(now, chain, evidence.amplification),
            normal_move=evidence.reach,
            fuel_usd=evidence.fuel_usd,
            depth_usd=evidence.depth_usd,
            depth_ratio=evidence.depth_ratio,
            refill_usd_s=conditions.refill_usd_s(self._direction),
            components={
                "fuel": parts.fuel,
                "loop_gain": parts.gain,
                "proximity": None if parts.proximity is None else parts.proximity[HEADLINE],
                "thinness": parts.thinness,
                "refill_failure": parts.refill_failure,
                "heat": parts.heat,
                "crowding": parts.crowding,
                "contagion": parts.contagion,
                "plumbing": parts.plumbing,
            },
            printed_usd=None if evidence.liquidated_usd is None else evidence.liquidated_usd[1],
            reasons=ranked(evidence, picture),
        )
        return risk, said.confidence, alerts

    def _said(
        self,
        now: Situation,
        p_map: PerHorizon | None,
        p_baseline: PerHorizon | None,
        completeness: float,
    ) -> Said:
        sure = confidence(
            feeds=now.quality, map_confidence=now.map_confidence, completeness=completeness
        )
        reasons = [card.assess(now.coverage, sure) for card in self.cards.values()]
        published = _published(list(self.cards.values()), p_map, p_baseline)
        headline = published[HEADLINE]
        return Said(
            published=published,
            score=None if headline is None else score(headline, self._model.base[HEADLINE]),
            confidence=sure,
            abstaining=next(filter(None, reasons), ""),
        )

    def _chain(self, now: Situation, conditions: Conditions) -> Chain | None:
        volatility = now.volatility
        if now.depth is None or now.fuel is None or volatility is None:
            return None
        d = self._direction
        moves = conditions.moves_sigma(d)
        survival, shares = conditions.survival(d).nodes(max(0.0, moves[0]) if moves else 0.0)
        psi = self.psi(conditions)
        scale = np.array([exp(z * now.level_sd) for z in SCALE_NODES])
        folds = solve(
            now.depth.usd,
            now.fuel,
            survival=survival,
            scale=scale,
            psi=psi,
            window=gain_window(volatility.sigma[1] * sqrt(300.0)),
        )
        weights = shares[:, None] * SCALE_WEIGHTS
        reached = structural(
            _or_never(folds.requote_distance),
            _or_never(folds.critical_usd),
            weights.ravel(),
            sigma=np.array(volatility.sigma[1:]),
            tau=_TAU,
            vol_of_vol=np.array(volatility.vol_of_vol[1:]),
            jump_rate=volatility.jump_rate,
            jump_size=volatility.jump_size,
            sigma_flow=conditions.flow_sigma(),
        )
        reach = 2.0 * volatility.sigma[2] * sqrt(900.0)
        fuel, depth = _at(now.fuel, reach), USUAL_W * _at(now.depth.usd, reach)
        p = reached.tolist()
        ratio = fuel / depth if depth > 0.0 else None
        critical = _critical(folds, weights, d)
        gain = _mean(folds.gain, weights)
        return Chain(folds, weights, critical, (p[0], p[1], p[2]), gain, ratio, psi)

    def psi(self, conditions: Conditions) -> float:
        """Flow that hits the book for each forced dollar, what is refilled meanwhile taken off."""
        d = self._direction
        rho = absorbed(conditions.refill_usd_s(d), conditions.throughput(d))
        return conditions.psi(d) * (1.0 - rho)

    def _features(
        self,
        now: Situation,
        chain: Chain | None,
        conditions: Conditions,
        printed: tuple[float, float, float] | None,
    ) -> Features:
        at, d, volatility = now.at, self._direction, now.volatility
        passage: PerHorizon | None = None
        if volatility is not None:
            wanted = max(LABEL.least_move, LABEL_SIGMAS * volatility.day * sqrt(300.0))
            p = first_passage(
                np.array([wanted]),
                np.array(volatility.sigma[1:]),
                _TAU,
                vol_of_vol=np.array(volatility.vol_of_vol[1:]),
                jump_rate=volatility.jump_rate,
                jump_size=volatility.jump_size,
            ).tolist()
            passage = (p[0], p[1], p[2])
        normal = conditions.normal_liquidated_usd(d)
        refill = conditions.refill_usd_s(d)
        return Features(
            structural=None if chain is None else chain.reached,
            passage=passage,
            sigma_fast=None if volatility is None else volatility.sigma[1],
            sigma_slow=None if volatility is None else volatility.day,
            depth=conditions.depth_ratio(d),
            refill=None if refill is None else absorbed(refill, conditions.throughput(d)),
            gain=None if chain is None else chain.gain,
            fuel=None if chain is None else chain.fuel_ratio,
            funding=conditions.funding_z(at, d),
            interest=conditions.interest_z(at),
            endogeneity=conditions.endogeneity(d),
            prints=printed[2] / (5.0 * normal) if printed is not None and normal else None,
            contagion=now.contagion,
            plumbing=conditions.plumbing(at),
        )

    def _evidence(
        self,
        now: Situation,
        chain: Chain | None,
        conditions: Conditions,
        said: Said,
        *,
        depth_ratio: float | None,
        printed: tuple[float, float, float] | None,
    ) -> Evidence:
        at, d, volatility = now.at, self._direction, now.volatility
        normal = None if volatility is None else volatility.sigma[2] * sqrt(900.0)
        reach = None if normal is None else max(0.01, as_ratio(2.0 * normal, d))
        away = 0.0 if reach is None else as_distance(reach, d)
        known = {h: p for h, p in zip(HORIZONS_S, said.published, strict=True) if p is not None}
        found = None if chain is None else chain.critical
        return Evidence(
            at=at,
            asset=self._asset,
            direction=d,
            score=said.score,
            probabilities=known or None,
            critical_shock=None if found is None else found[0],
            critical_usd=None if found is None else found[1],
            normal_move=normal,
            loop_gain=None if chain is None else chain.gain,
            amplification=self._amplification(now, chain),
            reach=reach,
            fuel_usd=None if now.fuel is None or reach is None else _at(now.fuel, away),
            depth_usd=None if now.depth is None or reach is None else _at(now.depth.usd, away),
            depth_ratio=depth_ratio,
            depth_recovered=conditions.depth_recovered(d),
            mark=now.mark,
            liquidated_usd=printed,
            normal_liquidated_usd=conditions.normal_liquidated_usd(d),
            moves=conditions.moves(d),
            moves_sigma=conditions.moves_sigma(d),
            open_interest_change=conditions.interest_change(at),
            confidence=said.confidence,
            abstaining=said.abstaining or None,
            stale=now.stale,
            missing=now.missing,
            contagion=now.contagion,
            opposite=now.opposite,
        )

    def _amplification(self, now: Situation, chain: Chain | None) -> float | None:
        """Of a move of two standard deviations; None where it runs beyond what is seen."""
        volatility = now.volatility
        if chain is None or now.depth is None or now.fuel is None or volatility is None:
            return None
        start = min(2.0 * volatility.sigma[2] * sqrt(900.0), 0.25)
        if start <= 0.0:
            return None
        stop = stop_of_requote(
            now.depth.usd, now.fuel, np.array([start]), survival=USUAL_W, scale=1.0, psi=chain.psi
        )
        end = float(stop[0])
        return end / start if end == end else None  # noqa: PLR0124  (NaN: beyond the grid)

    def _mechanism(
        self, now: Situation, chain: Chain | None, amplification: float | None
    ) -> Mechanism | None:
        if chain is None or now.depth is None or now.fuel is None or now.mark is None:
            return None
        d, folds = self._direction, chain.folds
        found = chain.critical
        bad = severity(folds, chain.weights, d)
        slope = _slope(folds, now.level_sd)
        near, far = _stretch(now.mark, folds, d)
        return Mechanism(
            critical_shock=None if found is None else found[0],
            critical_usd=None if found is None else found[1],
            landing=None if found is None else found[2],
            beyond=bad.beyond is not None and bad.beyond >= 0.5,
            reach=as_ratio(folds.reach, d),
            loop_gain=chain.gain,
            gain_from=near,
            gain_to=far,
            supercritical_share=_mean(folds.supercritical_share, chain.weights),
            amplification=amplification,
            jump=None if bad.jump_ratio is None else Range(*bad.jump_ratio),
            liquidated_usd=None
            if bad.liquidated_usd is None
            else Range(*(min(usd, now.interest_usd) for usd in bad.liquidated_usd)),
            psi=chain.psi,
            elasticity_depth=None if slope is None else 1.0 - slope,
            elasticity_fuel=slope,
        )

    # ------------------------------------------------------------------------------- grading

    def register(self, at: int) -> list[Forecast]:
        """Put down what is forecast now, at the end of a minute, before it is known."""
        found = []
        for i, card in enumerate(self.cards.values()):
            p_map = p_baseline = None
            if self._latest is not None:
                p_map = None if self._latest[0] is None else self._latest[0][i]
                p_baseline = self._latest[1][i]
            forecast = card.register(at, p_map, p_baseline, self._model.base[i])
            if forecast is not None:
                found.append(forecast)
        return found

    def minute(self, at: int) -> None:
        """A minute that ended at `at` was given to the label rule."""
        self._decided.heard(at)

    def judged(self, verdict: Verdict) -> None:
        """What the label rule makes of a past minute of this direction."""
        minute_ns = 60 * NS
        if verdict.onsets is None:
            for card in self.cards.values():
                card.unseen(verdict.at - minute_ns, verdict.at)
        elif TIER in verdict.onsets:
            for card in self.cards.values():
                card.onset(verdict.at)
            # An alarm within that minute has earned no lead.
            self.alarms.onset(verdict.at - minute_ns)
            self.rival.onset(verdict.at - minute_ns)
        self._decided.judged(verdict.at)

    def mature(self, at: int) -> list[ForecastVerdict]:
        """Grade what can be graded by now."""
        through = self._decided.through
        self.alarms.mature(through)
        self.rival.mature(through)
        return [v for card in self.cards.values() for v in card.mature(at, through)]

    # ------------------------------------------------------------------------- warm restart

    def state(self) -> OutlookState:
        """What a restart must not forget."""
        return OutlookState(
            held=self._forecaster.state(),
            phases=self._phases.state(),
            cards=[card.state() for card in self.cards.values()],
            alarms=self.alarms.state(),
            rival=self.rival.state(),
            decided=self._decided.state(),
        )

    def restore(self, state: OutlookState) -> None:
        """Take over a saved state.

        Raises:
            StateError: a part of it does not fit.
        """
        self._forecaster.restore(state.held)
        self._phases.restore(state.phases)
        for card, saved in zip(self.cards.values(), state.cards, strict=False):
            card.restore(saved)
        self.alarms.restore(state.alarms)
        self.rival.restore(state.rival)
        self._decided.restore(state.decided)


def _published(
    cards: list[Scorecard], p_map: PerHorizon | None, p_baseline: PerHorizon | None
) -> tuple[float | None, ...]:
    """What each horizon's card stands by; never less for a longer one."""
    found: list[float | None] = []
    least = 0.0
    for i, card in enumerate(cards):
        p = card.published(
            None if p_map is None else p_map[i], None if p_baseline is None else p_baseline[i]
        )
        if p is not None:
            # Two horizons may be by different models.
            least = p = max(p, least)
        found.append(p)
    return tuple(found)


def _or_never(values: Floats) -> Floats:
    """The nodes in one row; what does not happen at any size needs an infinite one."""
    row = values.ravel()
    return np.where(np.isnan(row), np.inf, row)


def _slope(folds: Folds, level_sd: float) -> float | None:
    """Change of ln(critical USD) per ln(fuel), over what is uncertain in the map's level."""
    low, *_, high = folds.critical_usd[MIDDLE_W].tolist()
    if not (low > 0.0 and high > 0.0 and level_sd > 0.0):
        return None
    return log(high / low) / ((SCALE_NODES[-1] - SCALE_NODES[0]) * level_sd)


def _critical(
    folds: Folds, weights: Floats, direction: Direction
) -> tuple[float, float, float | None] | None:
    order = np.argsort(_or_never(folds.critical_distance), kind="stable")
    below = weights.ravel()[order].cumsum()
    middle = order[min(int(below.searchsorted(0.5 * below[-1])), len(order) - 1)]
    row, column = divmod(int(middle), folds.critical_distance.shape[1])
    node = folds.node(row, column, direction)
    if node.shock_ratio is None or node.shock_usd is None:
        return None
    return node.shock_ratio, node.shock_usd, node.landing_ratio


def _stretch(mark: float, folds: Folds, direction: Direction) -> tuple[float, float]:
    """Prices between which the loop gain is largest, the nearer one first."""
    sign = SIGN[direction]
    return mark * exp(sign * folds.gain_from), mark * exp(sign * folds.gain_to)


def _mean(values: Floats, weights: Floats) -> float:
    return float((values * weights).sum() / weights.sum())


def _at(curve: Floats, distance: float) -> float:
    return float(np.interp(distance, DISTANCES, curve))


def _is_alarm(phase: str) -> bool:
    return phase == "cascading" or (phase in RISK and RISK.index(phase) >= WARNING)
