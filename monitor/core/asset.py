"""One underlying over all its venues: maps and books added up, and the risk that follows.

Responsible for what is true of the asset as a whole; `instrument` knows each part, `risk` judges.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from monitor.core.alerts.budget import Budget, BudgetState
from monitor.core.alerts.quality import Fault, Quality, QualityState
from monitor.core.alerts.reasons import Unheard
from monitor.core.alerts.rules import AlertRules
from monitor.core.cascade.coupling import StressRow
from monitor.core.cascade.curves import Floats
from monitor.core.cascade.stress import Stress, VenueCurves, stress
from monitor.core.conditions import (
    DIRECTIONS,
    INTEREST_STALE_NS,
    SIDE_OF,
    Conditions,
    ConditionsState,
)
from monitor.core.depth.liquidity import LiquidityState
from monitor.core.depth.supply import Curve
from monitor.core.depth.supply import pooled as pooled_curves
from monitor.core.forecast.coefficients import MODEL
from monitor.core.forecast.label import Labeller, LabellerState
from monitor.core.forecast.past import VOLATILITY_HORIZONS_S
from monitor.core.forecast.prints import PSI_MOST
from monitor.core.heatmap.calibration import ThrottleCorrection, Weights
from monitor.core.heatmap.map import Map, estimates
from monitor.core.heatmap.pooling import Estimate, fuel, fuel_within, pooled
from monitor.core.heatmap.priors import PUBLISHED, Belief
from monitor.core.instrument import InstrumentState
from monitor.core.prospect import USUAL_W, psi
from monitor.core.quantities.commonality import ALONE, Neighbourhood
from monitor.core.quantities.funds import by_venue
from monitor.core.quantities.quantities import Present, Quantifier
from monitor.core.risk import Outlook, OutlookState, Situation, foreseen
from monitor.core.saved import StateError, packed, unpacked
from monitor.events import (
    NS,
    Alert,
    Direction,
    DirectionRisk,
    Forecast,
    ForecastVerdict,
    Instrument,
    Liquidation,
    Phase,
    Risk,
)

VERSION: Final = 1

OPPOSITE: Final[dict[Direction, Direction]] = {"down": "up", "up": "down"}

STATE_KEPT_NS: Final = 72 * 3600 * NS
"""An older state is refused: the candles that say what it has missed do not reach further."""


NEAR: Final = 0.05
"""Distance within which a venue's share of the fuel is told."""


class Saved(Struct, frozen=True):
    """What outlives a restart. `correction` is that of the whole process.

    `stress` is how the asset follows others (`neighbours`), None where there is none.
    """

    version: int
    asset: str
    at: int
    correction: list[list[float]]
    pool: list[list[list[float]]]
    maps: dict[str, bytes]
    conditions: ConditionsState
    outlooks: list[OutlookState]
    labels: LabellerState
    budget: BudgetState
    faults: QualityState
    stress: StressRow | None = None


class Asset:
    """State of one asset.

    Attributes:
        name: such as ``BTC``.
        instruments: in the order in which they were listed.
        unlisted: names of those that are to be followed and whose venue has not listed them yet.
        conditions: moves, flows and prints, and what is usual.
        outlooks: the risk by direction.
        situations: what the outlooks were last formed on, by direction.
        risk: as last published.
        entered: how often each phase was, by direction.
        quantifier: what else is measured.
        neighbourhood: how it hangs together with other assets, set by `neighbours`.
        recalled: how it followed others before a restart, until `neighbours` has taken it over.
    """

    def __init__(
        self,
        name: str,
        correction: ThrottleCorrection,
        belief: Belief = PUBLISHED,
        rules: AlertRules = AlertRules(),  # noqa: B008 (frozen)
        unlisted: Iterable[str] = (),
    ) -> None:
        """`correction` is shared by all assets; `belief` is what maps start from."""
        self.name = name
        self.instruments: list[InstrumentState] = []
        self.unlisted = list(unlisted)
        self.conditions = Conditions(self.instruments, correction)
        self.quantifier = Quantifier(self.instruments, self.conditions)
        self.neighbourhood: Neighbourhood = ALONE
        self.recalled: StressRow | None = None
        self._budget = Budget(rules)
        self.outlooks = {
            d: Outlook(name, d, model=MODEL, rules=rules, budget=self._budget) for d in DIRECTIONS
        }
        self.situations: dict[Direction, Situation] = {}
        self.risk: Risk | None = None
        self.entered: Counter[tuple[Direction, Phase]] = Counter()
        self._quality = Quality(name, rules=rules)
        self._labeller = Labeller()
        self._correction = correction
        self._belief = belief
        self._pool = Weights(belief.prior)
        self._resumable: dict[str, bytes] = {}
        self._norms: dict[str, LiquidityState] = {}

    def add(self, state: InstrumentState) -> None:
        """Take over a new instrument."""
        self.instruments.append(state)
        self.conditions.joined()
        self.unlisted = [name for name in self.unlisted if name != state.spec.name]
        norms = self._norms.pop(state.spec.name, None)
        if norms is not None:
            state.liquidity.restore(norms)

    def printed(self, at: int, state: InstrumentState, event: Liquidation) -> None:
        """A venue reported a forced close of one of the instruments."""
        self.conditions.printed(at, state, event)
        self.quantifier.printed(at, state, event)

    def advance(self, at: int) -> list[Forecast | ForecastVerdict]:
        """Time passed; once a minute forecasts are registered and older ones graded."""
        minute = self.conditions.advance(at)
        self.quantifier.second(at)
        if minute is None:
            return []
        for outlook in self.outlooks.values():
            outlook.minute(minute.at)
        for verdict in self._labeller.heard(minute):
            self.outlooks[verdict.direction].judged(verdict)
        found: list[Forecast | ForecastVerdict] = []
        for outlook in self.outlooks.values():
            found += outlook.mature(minute.at)
            found += outlook.register(minute.at)
        return found

    def specify(self, at: int, state: InstrumentState) -> str | None:
        """Give an instrument the map that its margin tiers allow; why a saved one was refused.

        Without tiers there is no map: where positions are liquidated is then not known.
        """
        spec = state.spec
        if not spec.tiers:
            return None
        known = state.map
        if known is not None and known.instrument.kind == spec.kind:
            self.quantifier.risk_limit_changes += known.instrument.tiers != spec.tiers
            if _margin(known.instrument) != _margin(spec):
                known.respecify(spec)
            return None
        resumed = spec.name in self._resumable
        state.map = Map(
            spec,
            prior=self._belief.prior,
            parameters=self._belief.parameters,
            correction=self._correction,
            pool=self._pool,
        )
        reason = self._resume(at, state.map)
        if resumed and reason is None:
            state.ready_at = at
        state.tell()
        return reason

    # ------------------------------------------------------------------------------- outputs

    def pooled(self, estimates: Mapping[str, Estimate]) -> Estimate | None:
        """The estimates of all instruments together; None without any."""
        return pooled(self.name, list(estimates.values()), missing=self._missing(estimates))

    def by_venue(self, estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
        """The estimates of each venue's instruments together."""
        found = {}
        missing = self._missing(estimates)
        for venue in dict.fromkeys(state.spec.venue for state in self.instruments):
            own = [e for name, e in estimates.items() if name.startswith(f"{venue}:")]
            absent = [name for name in missing if name.startswith(f"{venue}:")]
            together = pooled(venue, own, missing=absent)
            if together is not None:
                found[venue] = together
        return found

    def _missing(self, estimates: Mapping[str, Estimate]) -> list[str]:
        known = [s.spec.name for s in self.instruments if s.spec.name not in estimates]
        return known + self.unlisted

    def estimates(self, at: int) -> dict[str, Estimate]:
        """What each instrument's map believes, as seen from a mark that is fresh.

        Where the mark is unheard the positions stand where they stood, and the price is taken to
        be that of the largest instrument that is heard. Nothing is known when none is.
        """
        known, maps = [], []
        for state in self.instruments:
            if at >= state.ready_at and state.map is not None and state.map.cohorts is not None:
                known.append(state)
                maps.append(state.map)
        found = list(zip(known, estimates(maps, at), strict=True))
        fresh = [(e, s.spec) for s, e in found if s.hears_mark(at)]
        if not fresh:
            return {}
        largest, spec = max(fresh, key=lambda pair: pair[0].open_interest_usd)
        price = largest.mark / spec.multiplier
        return {
            s.spec.name: e if s.hears_mark(at) else replace(e, mark=price * s.spec.multiplier)
            for s, e in found
        }

    # ---------------------------------------------------------------------------------- risk

    def assess(
        self,
        at: int,
        estimates: Mapping[str, Estimate],
        together: Estimate | None,
        contagion: Mapping[Direction, float],
    ) -> tuple[Risk, list[Alert]]:
        """The risk at `at` (ns), and the alerts that follow."""
        quality = self._heard_share(at)
        unheard = self._unheard(at)
        absent = self._absent(at)
        price = self.conditions.price()
        mark = together.mark if together is not None else self._mark(at)
        volatility = self.conditions.forecast
        # As of before: which of the two comes first must not matter.
        bursts = {d: outlook.burst(at) for d, outlook in self.outlooks.items()}
        for d in DIRECTIONS:
            depth = self._depth(at, d)
            here = fuel(together, d) if together is not None else None
            self.situations[d] = Situation(
                at=at,
                mark=mark,
                volatility=volatility if price is not None else None,
                depth=depth,
                fuel=here,
                level_sd=together.level_sd if together is not None else 0.0,
                interest_usd=together.open_interest_usd if together is not None else 0.0,
                map_confidence=together.confidence if together is not None else None,
                coverage=together.coverage * quality if together is not None else None,
                quality=quality,
                contagion=contagion.get(d),
                stale=_stale(price, depth, here),
                missing=tuple(absent),
                unheard=tuple(unheard),
                venue_fuel=_shares(estimates, d),
                opposite=bursts[OPPOSITE[d]],
                is_alone=self.neighbourhood.learnt is None,
            )
        ahead = foreseen(self.situations, self.conditions)
        directions, alerts, confidence = [], [], 1.0
        for d, outlook in self.outlooks.items():
            risk, sure, raised = outlook.update(self.situations[d], ahead, self.conditions)
            directions.append(risk)
            alerts += raised
            for alert in raised:
                if alert.phase is not None:
                    self.entered[d, alert.phase] += alert.phase != alert.previous
            confidence = min(confidence, sure)
        measured = self._measured(at, estimates, directions)
        abstaining = next((d.abstaining for d in directions if d.abstaining), "")
        faults = self._faults(at, absent, together, abstaining)
        alerts += self._quality.step(at, faults)
        self.risk = Risk(
            mark=mark,
            quality=quality,
            confidence=confidence,
            coverage=together.coverage if together is not None else None,
            volatility=None
            if volatility is None
            else {
                h: sigma * h**0.5
                for h, sigma in zip(VOLATILITY_HORIZONS_S, volatility.sigma, strict=True)
            },
            funding_rate=self.conditions.funding(at),
            contagion=max(contagion.values(), default=None),
            contagion_learnt=self.neighbourhood.learnt,
            missing=[f"{u.venue}: {u.what}" for u in unheard],
            faults=[fault.detail for fault in self._quality.standing()],
            model=MODEL.version,
            directions=[
                replace(d, quantities=measured.directions[d.direction]) for d in directions
            ],
            quantities=measured.taken,
        )
        return self.risk, alerts

    def _measured(
        self, at: int, estimates: Mapping[str, Estimate], directions: Sequence[DirectionRisk]
    ) -> Quantifier:
        """The quantities, taken anew where it is time."""
        present = {}
        for risk in directions:
            d, now, mechanism = risk.direction, self.situations[risk.direction], risk.mechanism
            present[d] = Present(
                depth=now.depth,
                fuel=now.fuel,
                psi=psi(self.conditions, d),
                critical=mechanism.critical_shock if mechanism is not None else None,
            )
        self.quantifier.take(at, estimates, present, self.neighbourhood)
        return self.quantifier

    def stress(
        self,
        at: int,
        shock: float,
        *,
        within_s: float | None = None,
        spot_share: float | None = None,
    ) -> Stress:
        """What a move of all books by `shock`, a signed ratio, would set off.

        Depth survives as in the median event, and the map is taken at its expected level. With
        `within_s` the mark has followed for so long only; `spot_share` is then that of the last
        minute's move unless it is given.

        Raises:
            ValueError: `shock` is no move, or the time or the share is none.
        """
        taken = self.quantifier.taken
        if spot_share is None and taken is not None:
            spot_share = taken.spot_share_ratio
        direction: Direction = "down" if shock < 0.0 else "up"
        side = SIDE_OF[direction]
        estimates = self.estimates(at)
        venues = []
        for state in self.instruments:
            name = state.spec.name
            curve = state.liquidity.curve(at, side)
            estimate = estimates.get(name)
            tiers = state.spec.tiers
            unheard = []
            if state.book.state != "synced" or (curve is not None and curve.stale):
                unheard.append("order book")
            if not state.hears_mark(at):
                unheard.append("mark price")
            venues.append(
                VenueCurves(
                    name=name,
                    mark=estimate.mark if estimate is not None else None,
                    depth=curve.usd if curve is not None else None,
                    fuel=fuel(estimate, direction) if estimate is not None else None,
                    maintenance=tiers[0].rate if tiers else None,
                    unheard=unheard,
                )
            )
        arbitrage = self.conditions.arbitrage
        return stress(
            shock,
            venues,
            survival=USUAL_W,
            psi=psi(self.conditions, direction),
            psi_capped=self.conditions.psi(direction) >= PSI_MOST,
            within_s=within_s,
            spot_share=spot_share,
            alphas={name: arbitrage.alpha(name) for name in arbitrage.venues},
            funds=by_venue(self.instruments, at),
            unlisted=self.unlisted,
        )

    def _depth(self, at: int, direction: Direction) -> Curve | None:
        side = SIDE_OF[direction]
        curves = [state.liquidity.curve(at, side) for state in self.instruments]
        return pooled_curves(curve for curve in curves if curve is not None)

    def _mark(self, at: int) -> float | None:
        """The mark of the largest instrument that is heard."""
        fresh = [s for s in self.instruments if s.hears_mark(at)]
        largest = max(fresh, key=lambda s: s.open_interest_base or 0.0, default=None)
        return None if largest is None else largest.mark

    def _heard_share(self, at: int) -> float:
        """Share of the instruments' inputs that are heard: mark, book and open interest."""
        if not self.instruments:
            return 0.0
        good = sum(
            s.hears_mark(at)
            + (s.book.state == "synced")
            + (at - s.open_interest_at <= INTEREST_STALE_NS)
            for s in self.instruments
        )
        return good / (3.0 * (len(self.instruments) + len(self.unlisted)))

    def _absent(self, at: int) -> list[str]:
        """Venues of which no instrument has a mark and a book to go by."""
        present = {
            s.spec.venue for s in self.instruments if s.hears_mark(at) and s.liquidity.holds(at)
        }
        names = [state.spec.name for state in self.instruments] + self.unlisted
        venues = dict.fromkeys(name.partition(":")[0] for name in names)
        return [venue for venue in venues if venue not in present]

    def _unheard(self, at: int) -> list[Unheard]:
        found = [Unheard(n.partition(":")[0], "specification", None) for n in self.unlisted]
        for s in self.instruments:
            venue = s.spec.venue
            if not s.hears_mark(at):
                found.append(Unheard(venue, "mark price", _age_s(at, s.mark_at)))
            if at - s.open_interest_at > INTEREST_STALE_NS:
                found.append(Unheard(venue, "open interest", _age_s(at, s.open_interest_at)))
            if s.book.state != "synced":
                found.append(Unheard(venue, "order book", _age_s(at, s.book_at)))
        return found

    def _faults(
        self, at: int, absent: list[str], together: Estimate | None, abstaining: str
    ) -> list[Fault]:
        faults = [Fault("venue_silent", v, f"{v}: neither mark nor book is heard") for v in absent]
        faults += [
            Fault("unlisted", name, f"{name}: its venue has not listed it")
            for name in self.unlisted
            if name.partition(":")[0] not in absent
        ]
        for s in self.instruments:
            name, venue = s.spec.name, s.spec.venue
            if venue in absent:
                continue
            if s.book.state != "synced":
                faults.append(Fault("book_unsynced", name, f"{name}: its book is {s.book.state}"))
            if not s.hears_mark(at):
                faults.append(Fault("mark_stale", name, f"{name}: no mark price for a minute"))
            if at - s.open_interest_at > INTEREST_STALE_NS:
                detail = f"{name}: no open interest for ten minutes"
                faults.append(Fault("open_interest_stale", name, detail))
        if together is None:
            faults.append(Fault("map_confidence_low", "", "there is no liquidation map"))
        if abstaining:
            faults.append(Fault("abstaining", "", abstaining))
        return faults

    # ------------------------------------------------------------------------- warm restart

    def state(self, at: int, stress: StressRow | None = None) -> bytes:
        """Everything needed to go on in another process; empty while nothing is known.

        `stress` is the asset's row of the stress betas.
        """
        maps = {m.instrument.name: m.state() for m in self._maps()}
        known = {name: data for name, data in maps.items() if data}
        if not known:
            return b""
        return packed(
            Saved(
                version=VERSION,
                asset=self.name,
                at=at,
                correction=self._correction.state(),
                pool=self._pool.state(),
                maps=known,
                conditions=self.conditions.state(),
                outlooks=[outlook.state() for outlook in self.outlooks.values()],
                labels=self._labeller.state(),
                budget=self._budget.state(),
                faults=self._quality.state(),
                stress=stress,
            )
        )

    def resume(self, at: int, data: bytes) -> Mapping[str, str]:
        """Go on from a saved state; the reasons of what was refused, by instrument or asset.

        Maps that are not there yet take theirs over once their specification is known.

        Raises:
            StateError: nothing of it can be used.
        """
        saved = unpacked(data, Saved)
        if saved.version != VERSION:
            raise StateError(f"state version {saved.version}, expected {VERSION}")
        if saved.asset != self.name:
            raise StateError(f"state of {saved.asset}, expected {self.name}")
        if not 0 <= at - saved.at <= STATE_KEPT_NS:
            raise StateError(f"state is {(at - saved.at) / NS / 3600:.1f} h old, at most 72 serve")
        try:
            # Into a spare one first, so that what does not fit changes nothing.
            Asset(self.name, ThrottleCorrection(), self._belief).restore(saved)
        except (ValueError, IndexError) as problem:
            raise StateError(f"state does not fit: {problem}") from problem
        self.restore(saved)
        for state in self.instruments:
            norms = self._norms.pop(state.spec.name, None)
            if norms is not None:
                state.liquidity.restore(norms)
        self._resumable = dict(saved.maps)
        refused = {}
        for heatmap in self._maps():
            reason = self._resume(at, heatmap)
            if reason is not None:
                refused[heatmap.instrument.name] = reason
        return refused

    def restore(self, saved: Saved) -> None:
        """Take over all but the maps.

        Raises:
            ValueError, IndexError, StateError: a part does not fit; those before it are taken over.
        """
        self._pool.restore(saved.pool)
        self._correction.restore(saved.correction)
        self._norms = self.conditions.restore(saved.conditions)
        for outlook, own in zip(self.outlooks.values(), saved.outlooks, strict=True):
            outlook.restore(own)
        self._labeller.restore(saved.labels)
        self._budget.restore(saved.budget)
        self._quality.restore(saved.faults)
        self.recalled = saved.stress

    def _resume(self, at: int, heatmap: Map) -> str | None:
        data = self._resumable.pop(heatmap.instrument.name, None)
        if data is None:
            return None
        try:
            heatmap.resume(data)
        except StateError as problem:
            return str(problem)
        heatmap.lost(at)
        return None

    def _maps(self) -> Iterator[Map]:
        return (state.map for state in self.instruments if state.map is not None)


def _margin(spec: Instrument) -> tuple[object, ...]:
    """What a map's margin table is made of."""
    return spec.tiers, spec.tier_unit, spec.contract


def _stale(price: float | None, depth: Curve | None, fuel_curve: Floats | None) -> str | None:
    """Why the inputs do not show the present."""
    if price is None:
        return "no mark price is heard"
    if fuel_curve is None:
        return "there is no liquidation map"
    if depth is None:
        return "no order book is believed"
    return None


def _shares(
    estimates: Mapping[str, Estimate], direction: Direction
) -> tuple[tuple[str, float], ...]:
    """Share of the near fuel by venue, largest first."""
    usd: dict[str, float] = {}
    for name, estimate in estimates.items():
        venue = name.partition(":")[0]
        usd[venue] = usd.get(venue, 0.0) + fuel_within(estimate, direction, NEAR)
    total = sum(usd.values())
    if total <= 0.0:
        return ()
    return tuple(sorted(((v, x / total) for v, x in usd.items()), key=lambda r: (-r[1], r[0])))


def _age_s(at: int, heard_at: int) -> float | None:
    return (at - heard_at) / NS if heard_at else None
