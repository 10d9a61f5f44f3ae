"""The risk of one asset in one direction: how fragile, how far, how large, how likely, and why.

`Outlook` turns what `prospect` found in the curves into probabilities, phases and reasons, and has
its own forecasts graded.
"""

from collections.abc import Mapping
from math import exp, log, sqrt
from typing import Final

from msgspec import Struct

from monitor.core.alerts.budget import Budget
from monitor.core.alerts.phases import Phases, PhasesState
from monitor.core.alerts.reasons import Burst, Evidence, Picture, Unheard, ranked
from monitor.core.alerts.rules import RISK, WARNING, AlertRules
from monitor.core.cascade.curves import DISTANCES, Floats, value_at
from monitor.core.cascade.loop import (
    GAIN_CAP,
    Folds,
    as_distance,
    as_ratio,
    severity,
)
from monitor.core.conditions import SIGN, Conditions
from monitor.core.depth.supply import Curve
from monitor.core.forecast.alarms import AlarmRecord, AlarmState
from monitor.core.forecast.components import components
from monitor.core.forecast.features import Features, PerHorizon
from monitor.core.forecast.label import Tier, Verdict
from monitor.core.forecast.model import Forecaster, HeldState, Model, confidence, score
from monitor.core.forecast.scorecard import Scorecard, ScorecardState
from monitor.core.forecast.unseen import Decided
from monitor.core.forecast.volatility import Forecast as Volatility
from monitor.core.prospect import MOVED, SCALE_NODES, Chain, Prospect, prospect
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

TIER: Final[Tier] = 1
"""Tier of the label that forecasts are graded by."""

MIDDLE_W: Final = 1
"""Index of the median node of survival."""

HEADLINE: Final = 1
"""The horizon that the score is about, 15 minutes."""


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
        is_alone: there is no other asset, so that contagion is not unknown but nothing.
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
    is_alone: bool = False


def foreseen(situations: Mapping[Direction, Situation], conditions: Conditions) -> Prospect | None:
    """What lies ahead in both directions of one asset at one time; None without a volatility."""
    first = next(iter(situations.values()))
    if first.volatility is None:
        return None
    curves = {
        d: (now.depth.usd, now.fuel)
        for d, now in situations.items()
        if now.depth is not None and now.fuel is not None
    }
    return prospect(
        curves, level_sd=first.level_sd, volatility=first.volatility, conditions=conditions
    )


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
        self, now: Situation, ahead: Prospect | None, conditions: Conditions
    ) -> tuple[DirectionRisk, float, list[Alert]]:
        """Form the outlook: the risk, the confidence in it, and the alerts that follow.

        `ahead` is None while volatility is not known.
        """
        at = now.at
        chain = None if ahead is None else ahead.chains.get(self._direction)
        printed = conditions.liquidated_usd(at, self._direction)
        features = self.features = self._features(now, ahead, conditions, printed)
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
            gain_capped=chain is not None and bool(chain.folds.gain.max() >= GAIN_CAP),
            venue_fuel=now.venue_fuel,
            unheard=now.unheard,
            lacking=tuple(
                name for name in forecast.missing if not (now.is_alone and name == "contagion")
            ),
        )
        alerts = self._phases.step(evidence, picture)
        standing = self._phases.standing()
        # A cascade that nobody called before is no alarm, one that was called goes on being one.
        goes_on = standing.phase == "cascading"
        self.alarms.step(at, is_alarm=None if goes_on else _warns(standing.phase))
        rival = None if p_baseline is None else score(p_baseline[1], self._model.base[HEADLINE])
        called = None if rival is None else rival >= self._rules.warning_score
        self.rival.step(at, is_alarm=called)
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
            mechanism=self._mechanism(now, chain),
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
            reasons=ranked(evidence, picture, phase=standing.phase),
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
            abstaining=reasons[HEADLINE],
        )

    def _features(
        self,
        now: Situation,
        ahead: Prospect | None,
        conditions: Conditions,
        printed: tuple[float, float, float] | None,
    ) -> Features:
        at, d, volatility = now.at, self._direction, now.volatility
        chain = None if ahead is None else ahead.chains.get(d)
        normal = conditions.normal_liquidated_usd(d)
        return Features(
            structural=None if chain is None else chain.reached,
            passage=None if ahead is None else ahead.passage,
            sigma_fast=None if volatility is None else volatility.sigma[1],
            sigma_slow=None if volatility is None else volatility.day,
            depth=conditions.depth_ratio(d),
            refill=conditions.absorbed(d),
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
        least, most = as_distance(0.01, d), float(DISTANCES[-1])
        away = 0.0 if normal is None else min(max(least, MOVED * normal), most)
        reach = None if normal is None else as_ratio(away, d)
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
            critical_requote=None if chain is None else chain.requote,
            normal_move=normal,
            loop_gain=None if chain is None else chain.gain,
            amplification=None if chain is None else chain.amplification,
            reach=reach,
            fuel_usd=None if now.fuel is None or reach is None else value_at(now.fuel, away),
            depth_usd=None if now.depth is None or reach is None else value_at(now.depth.usd, away),
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

    def _mechanism(self, now: Situation, chain: Chain | None) -> Mechanism | None:
        if chain is None or now.mark is None:
            return None
        d, folds = self._direction, chain.folds
        found = chain.critical
        bad = severity(folds, chain.weights, d)
        # Of a few nodes alone it would be the size of the unlikely.
        jump, burnt = (bad.jump_ratio, bad.liquidated_usd) if bad.weight >= 0.5 else (None, None)
        slope = _slope(folds, now.level_sd)
        near, far = _stretch(now.mark, folds, d)
        most = bad.beyond is not None and bad.beyond >= 0.5
        is_beyond = found is not None and (most or found[2] is None)
        return Mechanism(
            critical_shock=None if found is None else found[0],
            critical_usd=None if found is None else found[1],
            critical_requote=chain.requote,
            landing=None if found is None or is_beyond else found[2],
            beyond=is_beyond,
            reach=as_ratio(folds.reach, d),
            loop_gain=chain.gain,
            gain_from=near,
            gain_to=far,
            supercritical_share=chain.supercritical_share,
            amplification=chain.amplification,
            jump=None if jump is None else Range(*jump),
            liquidated_usd=None
            if burnt is None
            else Range(*(min(usd, now.interest_usd) for usd in burnt)),
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
            why = verdict.unknown or "undecided"
            since = verdict.at - minute_ns
            for card in self.cards.values():
                card.unseen(since, verdict.at, why, possible=verdict.possible)
            for record in (self.alarms, self.rival):
                record.unseen(since, verdict.at, why, possible=verdict.possible)
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


def _slope(folds: Folds, level_sd: float) -> float | None:
    """Change of ln(critical USD) per ln(fuel), over what is uncertain in the map's level."""
    low, *_, high = folds.critical_usd[MIDDLE_W].tolist()
    if not (low > 0.0 and high > 0.0 and level_sd > 0.0):
        return None
    return log(high / low) / ((SCALE_NODES[-1] - SCALE_NODES[0]) * level_sd)


def _stretch(mark: float, folds: Folds, direction: Direction) -> tuple[float, float]:
    """Prices between which the loop gain is largest, the nearer one first."""
    sign = SIGN[direction]
    return mark * exp(sign * folds.gain_from), mark * exp(sign * folds.gain_to)


def _warns(phase: str) -> bool:
    return phase in RISK and RISK.index(phase) >= WARNING
