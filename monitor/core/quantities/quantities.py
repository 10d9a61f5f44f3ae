"""The seed quantities of model.md D that are not part of the risk itself, asset by asset.

`Quantifier` is told prints, hears every second, and takes all quantities together every
`TAKEN_NS`; what costs more is done for one instrument at a time, in turn. docs/quantities.md has
the list, and what is missing for those that are not here. Nothing survives a restart: what has
to be learnt is unknown until it is learnt again.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import Floats
from monitor.core.cascade.impact import Impact, impact
from monitor.core.cascade.loop import as_distance, as_ratio
from monitor.core.cascade.stress import DEPEGS
from monitor.core.conditions import DIRECTIONS, SIDE_OF, SIGN, Conditions
from monitor.core.depth.supply import Curve
from monitor.core.heatmap.pooling import Estimate
from monitor.core.heatmap.pooling import fuel as fuel_of
from monitor.core.instrument import InstrumentState
from monitor.core.quantities.aftermath import Backlog, Efficiency, Reversion, Slicing
from monitor.core.quantities.approach import Approach
from monitor.core.quantities.commonality import Commonality, Neighbourhood, variation
from monitor.core.quantities.funds import by_venue, runways
from monitor.core.quantities.marks import TRADED_NS, MarkTrack, spot_share
from monitor.core.quantities.measures import (
    NEAR,
    around_cluster,
    brought_near,
    cluster,
    daily,
    mass_distances,
    passed_over,
    price_gap,
    stablecoin_deviation,
    stress_grid,
    tail_ratio,
    withdrawal,
    within,
    worn_shortfalls,
)
from monitor.core.quantities.regime import Regime
from monitor.core.quantities.standing import Standing, deleveraged, fees, maintenance
from monitor.core.quantities.turnover import Turnover
from monitor.events import (
    NS,
    Direction,
    DirectionQuantities,
    Liquidation,
    Quantities,
)

TAKEN_NS: Final = 5 * NS
"""Every quantity is taken no more often than this."""

NOTIONALS: Final = (1e6, 1e7)
"""Orders whose slippage is told, in USD."""

BURST: Final = 3.0
"""Times the usual minute that a minute of forced closes must have to be a burst."""

DEPTH_LEFT: Final = 0.5
"""Share of depth that is counted on when it runs out: the median survival (A7)."""

COMMON_MEMORY: Final = 720.0
COMMON_LEAST: Final = 60
"""Changes of depth, one a taking: an hour of memory, five minutes at least."""

APPROACH_NEAR: Final = 0.01
"""Log distance at which a cluster is near."""


Forced: TypeAlias = tuple[float, float, float]
"""USD force-closed in the last 10, 60 and 300 s."""


class Present(Struct, frozen=True, kw_only=True):
    """What a direction's quantities are taken from. None is unknown.

    `critical` is the critical move as a ratio of the mark.
    """

    depth: Curve | None
    fuel: Floats | None
    psi: float
    critical: float | None


class Quantifier:
    """Measured quantities of one asset.

    Attributes:
        taken: of the asset, as last taken; `directions` the same of each direction.
        risk_limit_changes: how often margin tiers in use were replaced.
    """

    def __init__(self, instruments: Sequence[InstrumentState], conditions: Conditions) -> None:
        """`instruments` is the asset's own list, which may still grow."""
        self._instruments, self._conditions = instruments, conditions
        self.taken: Quantities | None = None
        self.directions: dict[Direction, DirectionQuantities] = {}
        self.risk_limit_changes = 0
        self._second = self._turn = 0
        self._done = [-1] * 5
        self._near: dict[Direction, bool] = {}
        self._printed: dict[Direction, bool] = {}
        self._minute = 0
        self._turnover = Turnover()
        self._marks: dict[str, MarkTrack] = {}
        self._lags: dict[str, float | None] = {}
        self._standing = Standing()
        self._depths: dict[str, float] = {}
        self._common = Commonality(memory=COMMON_MEMORY, least=COMMON_LEAST)
        self._regime = Regime()
        self._slicing, self._efficiency = Slicing(), Efficiency()
        self._reversion = {d: Reversion(SIGN[d]) for d in DIRECTIONS}
        self._backlog = {d: Backlog() for d in DIRECTIONS}
        self._approach = {d: Approach() for d in DIRECTIONS}

    # -------------------------------------------------------------------------------- inputs

    def printed(self, at: int, state: InstrumentState, event: Liquidation) -> None:
        """A venue reported a forced close."""
        self._printed["down" if event.side == "long" else "up"] = True
        self._slicing.printed(at, event)
        if state.mark is not None and state.hears_mark(at):
            self._efficiency.printed(at, state, event, state.mark)

    def second(self, at: int) -> None:
        """Time passed, and `conditions` has heard of it; counts once a second."""
        if at // NS <= self._second:
            return
        self._second = at // NS
        for state in self._instruments:
            track = self._marks.setdefault(state.spec.name, MarkTrack())
            mark = state.mark if state.hears_mark(at) else None
            index = state.index if at - state.index_at <= TRADED_NS else None
            track.second(at, mark, index, state.last_price, state.trades)
        self._slicing.second(at)
        self._efficiency.second(at)
        price = self._conditions.price()
        for d, reversion in self._reversion.items():
            if self._printed.pop(d, False) and self._is_burst(at, d):
                reversion.printed()
            moves = self._conditions.moves(d)
            reversion.second(at, price, moves[0] if moves is not None else 0.0)

    def _is_burst(self, at: int, d: Direction) -> bool:
        """Whether far more than usual was force-closed in a minute; so it is before a usual."""
        usual, now = (
            self._conditions.normal_liquidated_usd(d),
            self._conditions.liquidated_usd(at, d),
        )
        return usual is None or now is None or now[1] > BURST * usual

    # ------------------------------------------------------------------------------- outputs

    def take(
        self,
        at: int,
        estimates: Mapping[str, Estimate],
        present: Mapping[Direction, Present],
        neighbours: Neighbourhood,
    ) -> None:
        """Take what is due: the asset, each direction, and what is learnt of one instrument."""
        if self._is_due(0, at):
            self._hear_flow(at)
            self.taken = self._asset(at, neighbours)
        for i, d in enumerate(DIRECTIONS, 1):
            if self._is_due(i, at):
                self.directions[d] = self._direction(at, d, estimates, present[d], neighbours)
        if self._is_due(3, at):
            self._turn += 1
            self._lag()
        if self._is_due(4, at):
            self._stand()
        minute = at // (60 * NS)
        if minute != self._minute:
            self._minute = minute
            self._hear_regime()

    def _is_due(self, part: int, at: int) -> bool:
        """Whether a part is to be taken: each once in `TAKEN_NS`, a second after the one before."""
        number = (at - part * NS) // TAKEN_NS
        if number == self._done[part]:
            return False
        self._done[part] = number
        return True

    def _asset(self, at: int, neighbours: Neighbourhood) -> Quantities:
        c, volatility = self._conditions, self._conditions.forecast
        known = volatility if c.price() is not None else None
        fresh = [s for s in self._instruments if s.mark is not None and s.hears_mark(at)]
        depths = self._hear_depths()
        flow = self._turnover.within(60)
        lags = [lag for lag in self._lags.values() if lag is not None]
        return Quantities(
            taker_imbalance_usd=None if flow is None else flow.bought - flow.sold,
            entry_concentration_ratio=self._standing.concentration(),
            depth_dispersion_ratio=variation(depths),
            depth_commonality_ratio=self._common.share(),
            venue_price_gap_ratio=price_gap([(s.mark or 0.0) / s.spec.multiplier for s in fresh]),
            mark_index_gap_ratio=c.mark_gap(at),
            mark_lag_seconds=max(lags, default=None),
            spot_share_ratio=spot_share(track.moved(at) for track in self._marks.values()),
            jump_intensity_per_hour=None if known is None else 2.0 * 3600.0 * known.jump_rate,
            downside_share_ratio=None if known is None else known.downside,
            # The side that pays downwards are the longs: their z is that of the rate itself.
            funding_zscore=c.funding_z(at, "down"),
            open_interest_zscore=c.interest_z(at),
            liquidation_efficiency_ratio=self._efficiency.ratio,
            liquidation_slicing_ratio=self._slicing.prints,
            first_slice_ratio=self._slicing.first_share,
            cross_margin_coupling_ratio=neighbours.coupling,
            liquidation_correlation_ratio=dict(neighbours.correlation),
            stress_beta_ratio=dict(neighbours.stress_betas),
            return_commonality_ratio=neighbours.returns,
            feed_stuck=self._stuck() if fresh or depths else None,
            stablecoin_deviation_ratio=stablecoin_deviation(self._instruments, at),
            regime_turbulent_ratio=self._regime.turbulent if known is not None else None,
            maintenance_margin_ratio=maintenance(self._instruments),
            liquidation_fee_ratio=fees(self._instruments),
            insurance_fund_usd={
                venue: fund.usd for venue, fund in by_venue(self._instruments, at).items()
            },
            risk_limit_changes=self.risk_limit_changes,
            adl_events=deleveraged(self._instruments),
        )

    def _direction(
        self,
        at: int,
        d: Direction,
        estimates: Mapping[str, Estimate],
        now: Present,
        neighbours: Neighbourhood,
    ) -> DirectionQuantities:
        c, fuel = self._conditions, now.fuel
        forced = c.liquidated_usd(at, d)
        depth = None if now.depth is None else now.depth.usd
        volatility = c.forecast if c.price() is not None else None
        moves = c.moves(d)
        here = None if fuel is None else cluster(fuel)
        if here is not None:
            self._near[d] = here <= APPROACH_NEAR
        else:
            self._near.pop(d, None)
        worn, by_fund = self._shortfalls(d, depth, estimates, now)
        side = SIDE_OF[d]
        gaps = [s.liquidity.gap(side) for s in self._instruments]
        known = [gap for gap in gaps if gap is not None]
        orders = {} if depth is None else {f"{x:.0f}": self._order(depth, x) for x in NOTIONALS}
        slips = {
            name: None if o.book is None else as_ratio(o.book, d) for name, o in orders.items()
        }
        roots = {
            name: None if o.square_root is None else as_ratio(o.square_root, d)
            for name, o in orders.items()
        }
        largest = list(orders.values())[-1:]
        geared = self._standing.leverage(d)
        return DirectionQuantities(
            forced_flow_share_ratio=self._forced_share(d, forced),
            liquidation_distance_ratio={} if fuel is None else mass_distances(fuel, d),
            effective_leverage_ratio=geared,
            margin_call_velocity_usd_per_second=None
            if fuel is None or moves is None
            else brought_near(fuel, moves[0], d) / 60.0,
            liquidity_exhaustion_seconds=self._exhaustion(d, depth, now.psi, forced),
            book_gap_ratio=sum(known) / len(known) if known else None,
            slippage_ratio=slips,
            impact_square_root_ratio=roots,
            impact_disagreement=largest[0].impact_model_disagreement if largest else None,
            uncovered_liquidation_usd=self._uncovered(at, d, estimates),
            stress=stress_grid(depth, fuel, psi=now.psi, direction=d)
            if depth is not None and fuel is not None
            else [],
            tail_ratio=None
            if now.critical is None or volatility is None
            else tail_ratio(as_distance(now.critical, d), volatility),
            insurance_shortfall_usd=worn,
            venue_shortfall_usd=by_fund,
            insurance_runway_ratio=runways(by_venue(self._instruments, at), by_fund),
            post_sweep_reversion_ratio=self._reversion[d].ratio,
            liquidity_withdrawal_ratio=self._withdrawal(at, d, fuel),
            cluster_approach_ratio=self._approach[d].ratio,
            engine_backlog_usd=None if forced is None else self._hear_backlog(at, d),
            engine_throughput_usd_per_second=c.throughput(d),
            depeg_liquidated_usd={}
            if fuel is None or geared is None
            else {f"{x:g}": within(fuel, x / geared) for x in DEPEGS},
            contagion_export_ratio=neighbours.exports.get(d),
            contagion_import_ratio=neighbours.imports.get(d),
        )

    def _shortfalls(
        self, d: Direction, depth: Floats | None, estimates: Mapping[str, Estimate], now: Present
    ) -> tuple[float | None, dict[str, float]]:
        """What funds would lose after a sale into a worn book, and each venue's part of it.

        A venue without margin tiers, or of which an instrument has no map, is left out.
        """
        rates = maintenance(self._instruments)
        if depth is None or now.fuel is None or not rates:
            return None, {}
        parts: dict[str, list[Floats]] = {venue: [] for venue in rates}
        for state in self._instruments:
            estimate = estimates.get(state.spec.name)
            if estimate is None:
                parts.pop(state.spec.venue, None)
            elif state.spec.venue in parts:
                parts[state.spec.venue].append(fuel_of(estimate, d))
        return worn_shortfalls(
            depth,
            now.fuel,
            {venue: (np.array(found).sum(axis=0), rates[venue]) for venue, found in parts.items()},
            psi=now.psi,
            maintenance=min(rates.values()),
            direction=d,
        )

    # ------------------------------------------------------------------------------- flows

    def _hear_flow(self, at: int) -> None:
        since = self._turnover.heard(
            at,
            sum(s.flow.bought_usd for s in self._instruments),
            sum(s.flow.sold_usd for s in self._instruments),
        )
        for d, near in self._near.items():
            towards = since.sold if d == "down" else since.bought
            self._approach[d].heard(towards, since.bought + since.sold, near=near)

    def _forced_share(self, d: Direction, forced: Forced | None) -> float | None:
        flow = self._turnover.within(300)
        if forced is None or flow is None:
            return None
        usd = flow.sold if d == "down" else flow.bought
        # Corrected for throttled feeds, prints may come to more than was heard of trades.
        return min(forced[2] / usd, 1.0) if usd > 0.0 else None

    def _exhaustion(
        self, d: Direction, depth: Floats | None, psi: float, forced: Forced | None
    ) -> float | None:
        flow = self._turnover.within(60)
        if depth is None or flow is None:
            return None
        net = SIGN[d] * (flow.bought - flow.sold) / flow.seconds
        # What is printed was traded as well: the larger of the two, and not their sum.
        drain = max(net, psi * (forced[1] if forced is not None else 0.0) / 60.0)
        return DEPTH_LEFT * within(depth, as_distance(NEAR, d)) / drain if drain > 0.0 else None

    def _order(self, depth: Floats, usd: float) -> Impact:
        volatility = self._conditions.forecast
        return impact(
            depth,
            usd,
            daily_volatility=None if volatility is None else daily(volatility.day),
            daily_volume_usd=self._turnover.daily_usd,
        )

    # ------------------------------------------------------------------------ books and marks

    def _hear_depths(self) -> list[float]:
        """Depth within 1 %, both sides, of every believed book; hears how they changed."""
        depths = {}
        for state in self._instruments:
            bid, ask = (state.liquidity.depth(side) for side in ("long", "short"))
            if bid is not None and ask is not None and bid + ask > 0.0:
                depths[state.spec.name] = bid + ask
        before, self._depths = self._depths, depths
        self._common.heard(
            {name: log(usd / before[name]) for name, usd in depths.items() if name in before}
        )
        return list(depths.values())

    def _withdrawal(self, at: int, d: Direction, fuel: Floats | None) -> float | None:
        if fuel is None:
            return None
        pairs = []
        for state in self._instruments:
            curve = state.liquidity.curve(at, SIDE_OF[d])
            if curve is not None and not curve.stale:
                pairs.append(around_cluster(curve.usd, curve.reach, fuel))
        return withdrawal([pair for pair in pairs if pair is not None])

    def _uncovered(self, at: int, d: Direction, estimates: Mapping[str, Estimate]) -> float | None:
        found = []
        for state in self._instruments:
            estimate, track = estimates.get(state.spec.name), self._marks.get(state.spec.name)
            last = track.last(at) if track is not None else None
            if estimate is not None and last is not None and state.hears_mark(at):
                found.append(passed_over(estimate, last, d))
        return sum(found) if found else None

    def _stuck(self) -> int:
        return sum(
            s.liquidity.stuck
            or (s.spec.name in self._marks and self._marks[s.spec.name].is_stuck())
            for s in self._instruments
        )

    # -------------------------------------------------------------------------- maps and rules

    def _in_turn(self) -> InstrumentState | None:
        """Whose turn it is to have taken of it what costs most."""
        known = self._instruments
        return known[self._turn % len(known)] if known else None

    def _lag(self) -> None:
        state = self._in_turn()
        if state is not None:
            name = state.spec.name
            self._lags[name] = self._marks[name].lag_s() if name in self._marks else None

    def _stand(self) -> None:
        state = self._in_turn()
        if state is not None:
            self._standing.read(state)

    def _hear_backlog(self, at: int, d: Direction) -> float:
        maps = [s.map for s in self._instruments if s.map is not None]
        i = 0 if d == "down" else 1
        backlog = self._backlog[d]
        backlog.heard(
            at, sum(m.expected_usd[i] for m in maps), sum(m.observed_usd[i] for m in maps)
        )
        return backlog.usd

    def _hear_regime(self) -> None:
        volatility = self._conditions.forecast
        if volatility is None or not (volatility.day > 0.0 and volatility.sigma[1] > 0.0):
            return
        ratios = [self._conditions.depth_ratio(d) for d in DIRECTIONS]
        logs = [log(ratio) for ratio in ratios if ratio is not None and ratio > 0.0]
        depth = sum(logs) / len(logs) if logs else None
        self._regime.minute(log(volatility.sigma[1] / volatility.day), depth)
