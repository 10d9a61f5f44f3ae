"""Every value that crosses a boundary: inputs, market events, outputs and commands.

Units are fixed here once. `at` is the receive time and `sent_at` the venue's own time, both integer
nanoseconds since the Unix epoch. Prices are in quote currency per base unit, quantities in base
units, money in USD (a USD stablecoin counts as one dollar). A `side` is always that of the
*position*: ``long`` positions are liquidated below the price, ``short`` ones above it. Nothing here
has behaviour beyond naming.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

Side: TypeAlias = Literal["long", "short"]
Taker: TypeAlias = Literal["buy", "sell"]
Direction: TypeAlias = Literal["down", "up"]
"""Where a cascade would run: ``down`` liquidates longs, ``up`` shorts."""
PriceKind: TypeAlias = Literal["bankruptcy", "fill", "order_limit", "mark", "unknown"]
Completeness: TypeAlias = Literal["all", "sampled_1s", "partial", "tail_only"]
Level: TypeAlias = tuple[float, float]
"""A price and the quantity resting there, in base units; quantity 0 removes the level."""

NS = 1_000_000_000
"""Nanoseconds in a second."""

MARK_CHANNELS = frozenset({"mark", "ticker"})
"""Channels that carry the mark price."""

HORIZONS_S = (300, 900, 3600)
"""Over which a probability is forecast, in seconds."""


# ---------------------------------------------------------------------------------- inputs


class Frame(Struct, frozen=True, gc=False):
    """One websocket message exactly as received."""

    at: int
    feed: str
    data: bytes


class Reply(Struct, frozen=True, gc=False):
    """The answer to a `Fetch`; status 0 means that no HTTP answer came and `data` says why."""

    at: int
    venue: str
    key: str
    status: int
    data: bytes


class Opened(Struct, frozen=True, gc=False):
    """A feed's socket is open and nothing has been received on it yet."""

    at: int
    feed: str


class Lost(Struct, frozen=True, gc=False):
    """A feed's socket is gone; whatever was sent until the next `Opened` is missed."""

    at: int
    feed: str
    reason: str


class Tick(Struct, frozen=True, gc=False):
    """Time passed. The only clock the core has."""

    at: int


class Restored(Struct, frozen=True, gc=False):
    """What an earlier run knew of an asset, as `Engine.state` gave it."""

    at: int
    asset: str
    data: bytes


Input: TypeAlias = Frame | Reply | Opened | Lost | Tick | Restored


# ----------------------------------------------------------------------------- instruments


class Tier(Struct, frozen=True):
    """One row of a maintenance-margin table.

    It holds for positions in ``(floor, cap]``, in the unit of `Instrument.tier_unit`. The
    maintenance margin is ``notional * rate - deduction`` (exchanges.md 0.4).
    """

    floor: float
    cap: float | None
    rate: float
    deduction: float
    max_leverage: float


class Instrument(Struct, frozen=True):
    """Contract specification of one symbol on one venue.

    Attributes:
        name: ``venue:symbol``, unique over all venues.
        asset: the underlying that carries the risk, such as ``BTC``.
        kind: ``linear`` is margined in quote, ``inverse`` in base currency.
        contract: base units per venue quantity (linear), or USD per contract (inverse).
        multiplier: units of `asset` in one base unit (1000 for ``1000PEPE``).
        tick: smallest price step.
        lot: smallest venue quantity step, in venue quantities.
        funding_interval_hours: None when the venue has not said.
        tier_unit: what `Tier.floor` and `Tier.cap` count.
        as_of: where and when the specification comes from, ``venue`` or a static table's date.
    """

    name: str
    venue: str
    symbol: str
    asset: str
    kind: Literal["linear", "inverse"]
    contract: float
    tick: float
    lot: float
    multiplier: float = 1.0
    funding_interval_hours: float | None = None
    tier_unit: Literal["quote", "base", "contracts"] = "quote"
    tiers: tuple[Tier, ...] = ()
    liquidation_fee: float | None = None
    as_of: str = "venue"


# --------------------------------------------------------------------------- market events


class Listed(Struct, frozen=True):
    """An instrument's specification became known or changed."""

    instrument: Instrument


class BookSnapshot(Struct, frozen=True, gc=False):
    """The whole visible book. `depth` is the venue's limit of levels a side.

    `maintained` says that the venue keeps exactly the best `depth` levels up to date (the book is
    then trimmed to them); otherwise later deltas may add levels beyond the snapshot's reach.
    """

    instrument: str
    sent_at: int
    bids: list[Level]
    asks: list[Level]
    depth: int
    maintained: bool


class BookDelta(Struct, frozen=True, gc=False):
    """Absolute quantities of the levels that changed, in sequence with what came before."""

    instrument: str
    sent_at: int
    bids: list[Level]
    asks: list[Level]


class Syncing(Struct, frozen=True, gc=False):
    """A book has been subscribed and its snapshot is awaited."""

    instrument: str


class Gap(Struct, frozen=True, gc=False):
    """The book is not to be believed until the next snapshot.

    `reason` is ``feed_lost`` when its socket went, else it lost its sequence. ``marks_lost`` says
    nothing of the book: marks, and prints that come with them, are missed until the next mark.
    """

    instrument: str
    reason: str


class Trade(Struct, frozen=True, gc=False):
    """An execution in the order book."""

    instrument: str
    sent_at: int
    price: float
    quantity: float
    taker: Taker


class Transfer(Struct, frozen=True, gc=False):
    """A print outside the order book: insurance fund, auto-deleveraging or block trade.

    It carries no price information and does not count as a trade.
    """

    instrument: str
    sent_at: int
    price: float
    quantity: float
    kind: Literal["insurance_fund", "adl", "block", "other"]


class Liquidation(Struct, frozen=True, gc=False):
    """A forced close that the venue reported (exchanges.md 0.3).

    `price` is what the venue printed and `price_kind` says what that is; `fill_price` is the
    average execution where the venue tells it. `usd` is valued at the fill price where there is
    one, else at `price`.
    """

    instrument: str
    sent_at: int
    side: Side
    quantity: float
    usd: float
    price: float
    price_kind: PriceKind
    fill_price: float | None
    completeness: Completeness
    raw_side: str


class MarkPrice(Struct, frozen=True, gc=False):
    """Mark and index price; None where the message carried only the other.

    `sent_at` is 0 where the venue does not tell it (Hyperliquid).
    """

    instrument: str
    sent_at: int
    mark: float | None
    index: float | None


class Funding(Struct, frozen=True, gc=False):
    """Funding rate per 8 hours, positive when longs pay, with the venue's own interval."""

    instrument: str
    sent_at: int
    rate_8h: float
    interval_hours: float
    next_at: int | None


class OpenInterest(Struct, frozen=True, gc=False):
    """One-sided open interest. `usd` is None until a price to value it at is known."""

    instrument: str
    sent_at: int
    base: float
    usd: float | None


class Candle(Struct, frozen=True, gc=False):
    """Trade prices of one past period that ended at `at`."""

    at: int
    low: float
    high: float
    close: float


class Candles(Struct, frozen=True):
    """Recent candles of `period_s` seconds, closed ones only, oldest first; told once a start."""

    instrument: str
    period_s: int
    rows: list[Candle]


class InterestHistory(Struct, frozen=True):
    """Recent open interest, told once a start.

    `rows` are the end of a period (ns) and one-sided open interest in base units as it stood
    then, oldest first and some five minutes apart.
    """

    instrument: str
    rows: list[tuple[int, float]]


class InsuranceFund(Struct, frozen=True):
    """What one pool holds that pays for forced closes beyond their margin.

    `balances` are amounts by currency, negative where the pool is overdrawn; `covers` names the
    instruments it pays for, as far as they are followed.
    """

    venue: str
    sent_at: int
    balances: dict[str, float]
    covers: tuple[str, ...]


class Silence(Struct, frozen=True, gc=False):
    """A stream that must not be quiet has been; `since` is None when it is heard again."""

    instrument: str
    channel: str
    since: int | None


class Rejected(Struct, frozen=True, gc=False):
    """Remote input that was refused, with a reason from a closed set (see `venues.base`)."""

    venue: str
    feed: str
    reason: str


Market: TypeAlias = (
    Listed
    | BookSnapshot
    | BookDelta
    | Syncing
    | Gap
    | Trade
    | Transfer
    | Liquidation
    | MarkPrice
    | Funding
    | OpenInterest
    | Candles
    | InterestHistory
    | InsuranceFund
    | Silence
    | Rejected
)


# -------------------------------------------------------------------------------- commands


class Send(Struct, frozen=True, gc=False):
    """Send a text message on a feed."""

    feed: str
    data: str


class Fetch(Struct, frozen=True, gc=False):
    """Ask the venue's HTTP interface; the answer comes back as a `Reply` with the same key.

    `path` is relative to the venue's HTTP base URL; `body` is JSON for a POST, empty for a GET.
    """

    venue: str
    key: str
    path: str
    body: bytes = b""
    weight: int = 1


class Close(Struct, frozen=True, gc=False):
    """Drop a feed's socket; the feed connects again by itself."""

    feed: str
    reason: str


Command: TypeAlias = Send | Fetch | Close


# --------------------------------------------------------------------------------- outputs


class Desync(Struct, frozen=True, gc=False):
    """The engine found a book untrue (crossed, bad number); its codec has to resynchronise it."""

    instrument: str
    reason: str


class Band(Struct, frozen=True, gc=False):
    """Cumulative resting USD within `distance` (a ratio) of the mid price.

    Where a side is not complete, its sum is a lower bound: the venue shows no more levels, or a
    book is not synced. Unknown is not empty.
    """

    distance: float
    bid_usd: float
    ask_usd: float
    bid_complete: bool
    ask_complete: bool


class VenueDepth(Struct, frozen=True):
    """One instrument's contribution to the depth of an asset."""

    instrument: str
    mid: float
    bands: list[Band]


class Depth(Struct, frozen=True):
    """Depth of an asset, pooled over the instruments whose book is synced.

    `missing` names the instruments whose book is not: the pooled sums do not contain them.
    """

    bands: list[Band]
    venues: list[VenueDepth]
    missing: list[str]


class AtRisk(Struct, frozen=True, gc=False):
    """USD force-closed if the mark moved by `distance` (a ratio): longs down, shorts up."""

    distance: float
    long_usd: float
    short_usd: float


class Heatmap(Struct, frozen=True):
    """A liquidation map. Bucket i holds ln prices from ``ln(first_price) + i * log_step`` on.

    Attributes:
        name: the asset, the venue or the instrument whose positions these are.
        long_usd, short_usd: expected forced closes per bucket, valued at the bucket's price.
        long_low, long_high, short_low, short_high: 80 % interval of each bucket.
        scale_low, scale_high: 80 % band of a factor common to all buckets.
        mark: mark price of the largest open interest.
        coverage: share of open interest that stands on the map, 0 to 1.
        heard: share of that whose opening was heard rather than assumed from history.
        confidence: 0 to 1; freshness times coverage times what was heard and learnt.
        provenance: ``warm_start`` while most of it is assumed.
        venues: those whose positions are in it.
        missing: instruments that should be and are not: their fuel is unknown, not zero.
    """

    name: str
    first_price: float
    log_step: float
    n: int
    long_usd: list[float]
    short_usd: list[float]
    long_low: list[float]
    long_high: list[float]
    short_low: list[float]
    short_high: list[float]
    scale_low: float
    scale_high: float
    mark: float
    coverage: float
    heard: float
    confidence: float
    provenance: Literal["warm_start", "heard"]
    at_risk: list[AtRisk]
    venues: list[str]
    missing: list[str] = []


class HeatmapRow(Struct, frozen=True):
    """One row of the two-dimensional picture: a map near the mark, in whole USD."""

    mark: float
    first_price: float
    log_step: float
    long_usd: list[int]
    short_usd: list[int]


class InstrumentStatus(Struct, frozen=True):
    """Health of one instrument. Ages are seconds at `Message.at`, None when never heard."""

    instrument: str
    book: str
    book_age_s: float | None
    mark_age_s: float | None
    open_interest_age_s: float | None
    silent: list[str]


class Status(Struct, frozen=True):
    """Health of everything the engine listens to."""

    feeds: dict[str, bool]
    instruments: list[InstrumentStatus]


Phase: TypeAlias = Literal["calm", "watch", "warning", "critical", "cascading", "exhausted"]
Severity: TypeAlias = Literal["info", "warning", "critical"]
Action: TypeAlias = Literal["raised", "changed", "cleared"]
Author: TypeAlias = Literal["map", "baseline"]
"""Which of the two models a published probability is from."""


class Reason(Struct, frozen=True):
    """One sentence. `weight` is its contribution from 0 to 1; 0 says that something is unknown."""

    code: str
    text: str
    weight: float


class Range(Struct, frozen=True, gc=False):
    """An expected value with its 10 and 90 % quantiles."""

    mean: float
    low: float
    high: float


class Probability(Struct, frozen=True, gc=False):
    """Of a cascade within a horizon: as published, by the map model and without the map."""

    horizon_s: int
    ratio: float | None
    map: float | None
    baseline: float | None


class Mechanism(Struct, frozen=True, kw_only=True):
    """The loop as solved: where it starts, how strong it is and where it would end.

    Attributes:
        critical_shock, critical_usd: the smallest sale or purchase that would run by itself, and
            how far it moves the price till then; None where none is found up to `reach`.
        critical_requote: the smallest move of all quotes at once, as by news, that would run on by
            itself; what the what-if asks for. None likewise.
        landing: how far from the mark it would end, a ratio; None without a critical shock, or
            with `beyond`: farther than can be seen.
        loop_gain: the largest along the path, between the prices `gain_from` and `gain_to`; capped
            at 100, which means 100 or more.
        supercritical_share: of the distances within 5 %, that with a loop gain above 1.
        amplification: of a move of two standard deviations in 15 minutes; None: beyond what is
            seen.
        jump, liquidated_usd: how far and how much, if it comes, at least with `beyond`; None where
            most of what is uncertain has no critical shock.
        psi: flow that hits the book for each forced dollar, what is refilled meanwhile taken off.
        elasticity_depth, elasticity_fuel: change of ln(critical_usd) with ln(depth), ln(fuel).
    """

    critical_shock: float | None
    critical_usd: float | None
    critical_requote: float | None
    landing: float | None
    beyond: bool
    reach: float
    loop_gain: float
    gain_from: float
    gain_to: float
    supercritical_share: float
    amplification: float | None
    jump: Range | None
    liquidated_usd: Range | None
    psi: float
    elasticity_depth: float | None
    elasticity_fuel: float | None


class StressPoint(Struct, frozen=True, gc=False):
    """Where it ends when all books move by `shock` while `survival` of their depth is left.

    `landing_ratio` is from the mark; None where that is farther than can be seen, and
    `liquidated_usd` is a lower bound then.
    """

    shock: float
    survival: float
    landing_ratio: float | None
    liquidated_usd: float


class DirectionQuantities(Struct, frozen=True, kw_only=True):
    """Measured quantities of one direction, taken every few seconds. None is unknown.

    docs/quantities.md says how each is formed; names are those of the metrics.

    Attributes:
        forced_flow_share_ratio: printed forced closes over taker volume the same way, 5 minutes.
        liquidation_distance_ratio: within which this share of what can be liquidated stands.
        effective_leverage_ratio: mean leverage of standing positions, by USD.
        margin_call_velocity_usd_per_second: what the last minute's move brought within 1 %.
        liquidity_exhaustion_seconds: until the depth within 1 % is used up at the present rate;
            None also where nothing drains it.
        book_gap_ratio: share of the steps within 1 % in which nobody quotes, mean of the books.
        slippage_ratio: of an order of so many USD over all books; None where they do not hold it.
        impact_square_root_ratio: the same by the square-root law.
        impact_disagreement: whether the two contradict each other for the largest of the orders.
        uncovered_liquidation_usd: what stands between the marks and the prices traded.
        stress: what shocks would set off.
        tail_ratio: chance of reaching the critical move over that by a normal distribution.
        insurance_shortfall_usd: what funds would lose after a sale that moves a worn book by 5 %.
            That one sale either stops there or sets off what lies beyond, so that a small change
            of the map may change it by much.
        venue_shortfall_usd: the same by venue, at its own maintenance margin.
        insurance_runway_ratio: by venue, its fund over that, at most a thousand; below 1 winners
            would be closed as well (auto-deleveraging). The fund is taken to be there for this
            asset alone. Absent also where nothing would be lost.
        post_sweep_reversion_ratio: share of a sweep's move that has come back 15 minutes later.
        liquidity_withdrawal_ratio: -1 to 1, how far makers avoid the largest cluster.
        cluster_approach_ratio: share of taker flow towards a near cluster, less that otherwise.
        engine_backlog_usd: swept and not yet printed, fading over a minute.
        engine_throughput_usd_per_second: that 95 % of forced USD did not exceed over ten seconds.
        depeg_liquidated_usd: closed at once if margin lost so much of its value, were all of it
            in the fallen collateral: an upper bound.
        contagion_export_ratio, contagion_import_ratio: what its moves do to the other assets, and
            theirs to it.
    """

    forced_flow_share_ratio: float | None = None
    liquidation_distance_ratio: dict[str, float] = {}
    effective_leverage_ratio: float | None = None
    margin_call_velocity_usd_per_second: float | None = None
    liquidity_exhaustion_seconds: float | None = None
    book_gap_ratio: float | None = None
    slippage_ratio: dict[str, float | None] = {}
    impact_square_root_ratio: dict[str, float | None] = {}
    impact_disagreement: bool | None = None
    uncovered_liquidation_usd: float | None = None
    stress: list[StressPoint] = []
    tail_ratio: float | None = None
    insurance_shortfall_usd: float | None = None
    venue_shortfall_usd: dict[str, float] = {}
    insurance_runway_ratio: dict[str, float] = {}
    post_sweep_reversion_ratio: float | None = None
    liquidity_withdrawal_ratio: float | None = None
    cluster_approach_ratio: float | None = None
    engine_backlog_usd: float | None = None
    engine_throughput_usd_per_second: float | None = None
    depeg_liquidated_usd: dict[str, float] = {}
    contagion_export_ratio: float | None = None
    contagion_import_ratio: float | None = None


class Quantities(Struct, frozen=True, kw_only=True):
    """Measured quantities of an asset, taken every few seconds. None is unknown.

    Attributes:
        taker_imbalance_usd: what takers bought less what they sold in the last minute.
        entry_concentration_ratio: Herfindahl index of the entry prices of standing positions, in
            bins of 25 bp; 1 if all entered at one price.
        depth_dispersion_ratio: coefficient of variation of the venues' depth within 1 %.
        depth_commonality_ratio: share of the first principal component in its changes.
        venue_price_gap_ratio: largest distance of a venue's mark from their median.
        mark_index_gap_ratio: largest distance of a mark from its index.
        mark_lag_seconds: by which a venue's mark follows its trades, the largest.
        spot_share_ratio: share of the last minute's move of the perpetual that moved most which
            its index, spot, made as well; None for a move of less than 20 bp.
        jump_intensity_per_hour: expected jumps of the price, both ways.
        downside_share_ratio: of falling returns in the variance of the last hour.
        funding_zscore, open_interest_zscore: against the last 30 days.
        liquidation_efficiency_ratio: what the margin left was worth at the fill; 1 without
            slippage, below 0 the fund pays.
        liquidation_slicing_ratio: prints per forced close; `first_slice_ratio` is the share of
            the first of them.
        cross_margin_coupling_ratio: liquidated together with any other asset, over chance.
        liquidation_correlation_ratio: the same with each other asset.
        stress_beta_ratio: its move per move of another, while the other is violent.
        return_commonality_ratio: share of the first principal component in all assets' returns.
        feed_stuck: instruments whose book or mark repeats itself while trades go on.
        stablecoin_deviation_ratio: what a dollar stablecoin is worth less than a dollar, from
            prices quoted in either.
        regime_turbulent_ratio: probability of the unquiet one of two states.
        maintenance_margin_ratio: of the smallest positions, by venue.
        liquidation_fee_ratio: by venue, where it says.
        insurance_fund_usd: by venue, of the pools that cover the asset there.
        risk_limit_changes: how often margin tiers in use were replaced, since the start.
        adl_events: auto-deleveragings since the start, of venues whose transfers are heard.
    """

    taker_imbalance_usd: float | None = None
    entry_concentration_ratio: float | None = None
    depth_dispersion_ratio: float | None = None
    depth_commonality_ratio: float | None = None
    venue_price_gap_ratio: float | None = None
    mark_index_gap_ratio: float | None = None
    mark_lag_seconds: float | None = None
    spot_share_ratio: float | None = None
    jump_intensity_per_hour: float | None = None
    downside_share_ratio: float | None = None
    funding_zscore: float | None = None
    open_interest_zscore: float | None = None
    liquidation_efficiency_ratio: float | None = None
    liquidation_slicing_ratio: float | None = None
    first_slice_ratio: float | None = None
    cross_margin_coupling_ratio: float | None = None
    liquidation_correlation_ratio: dict[str, float] = {}
    stress_beta_ratio: dict[str, float] = {}
    return_commonality_ratio: float | None = None
    feed_stuck: int | None = None
    stablecoin_deviation_ratio: float | None = None
    regime_turbulent_ratio: float | None = None
    maintenance_margin_ratio: dict[str, float] = {}
    liquidation_fee_ratio: dict[str, float] = {}
    insurance_fund_usd: dict[str, float] = {}
    risk_limit_changes: int = 0
    adl_events: dict[str, int] = {}


class DirectionRisk(Struct, frozen=True, kw_only=True):
    """Risk of an asset in one direction. None is unknown, never zero.

    Attributes:
        phase: as it is to be shown; ``unknown`` where ``calm`` would rest on unusable inputs, or on
            a forecast that is missing or not stood by.
        phase_age_s: for how long; `alert` is the id of the episode that stands, else empty.
        held: why the phase stands above what its evidence raises now; `abstaining`: why no
            forecast is stood by.
        score: 0 in an ordinary minute, 1 at even odds of a cascade in 15 minutes.
        using: which model is published.
        mechanism: None where depth, map or volatility is not known.
        normal_move: two standard deviations over 15 minutes, at least 1 %; `fuel_usd` and
            `depth_usd` lie within it.
        components: what the score is made of, 0 to 1 each (model.md A12).
        printed_usd: forced closes in the last minute, corrected for throttled feeds.
        quantities: what else is measured; None before the first taking.
    """

    direction: Direction
    phase: Phase | Literal["unknown"]
    phase_age_s: float
    alert: str
    held: str
    abstaining: str
    silent: bool
    score: float | None
    using: Author
    probabilities: list[Probability]
    mechanism: Mechanism | None
    normal_move: float | None
    fuel_usd: float | None
    depth_usd: float | None
    depth_ratio: float | None
    refill_usd_s: float | None
    components: dict[str, float | None]
    printed_usd: float | None
    reasons: list[Reason]
    quantities: DirectionQuantities | None = None


class Risk(Struct, frozen=True, kw_only=True):
    """Risk of an asset, down and up.

    Attributes:
        quality: how far the inputs can be trusted now; `confidence` the forecast, which it is in.
        coverage: share of the open interest that stands on the map.
        volatility: forecast over the horizons in seconds, a ratio, not annualised.
        funding_rate: per 8 hours, by open interest.
        contagion: spectral radius of what assets do to each other; None while less than half of
            what it rests on is learnt, counting the assets that are known in its direction.
        contagion_learnt: the same share of all assets of the process; None with one alone.
        missing: instruments that are not heard, and `faults` what is wrong, in words.
        model: version of the coefficients.
        quantities: what else is measured; None before the first taking.
    """

    mark: float | None
    quality: float
    confidence: float
    coverage: float | None
    volatility: dict[int, float] | None
    funding_rate: float | None
    contagion: float | None
    missing: list[str]
    faults: list[str]
    model: str
    directions: list[DirectionRisk]
    quantities: Quantities | None = None
    contagion_learnt: float | None = None


class Alert(Struct, frozen=True, kw_only=True):
    """One turn of an episode, which begins with ``raised`` and ends with ``cleared``.

    Attributes:
        id: the same through an episode, unique also over restarts without a state.
        code: what a quality alert is about; empty for risk.
        subject: whose fault it is, such as a venue; empty for risk.
        phase, previous: None for quality; `since` is when the phase, or the fault, began.
        held: why the phase could not step down, else empty.
        silent: made while observing; to be recorded and not sent.
    """

    id: str
    kind: Literal["risk", "quality"]
    action: Action
    asset: str
    direction: Direction | None
    phase: Phase | None
    previous: Phase | None
    since: int
    at: int
    severity: Severity
    score: float | None
    probability_15m: float | None
    reasons: list[Reason]
    confidence: float | None
    silent: bool
    held: str
    text: str
    code: str = ""
    subject: str = ""


class Forecast(Struct, frozen=True, kw_only=True):
    """A probability as it was published, before the fact.

    Attributes:
        id: the same in its verdict.
        due: the end of its window, which begins at `at`.
        probability: the published one, the map's or the baseline's as `using` says.
        abstaining: why it is not stood by, else empty; it is graded all the same.
    """

    id: str
    asset: str
    direction: Direction
    horizon_s: int
    at: int
    due: int
    probability: float
    using: Author
    p_map: float | None
    p_baseline: float | None
    p_climatology: float
    abstaining: str


Ungraded: TypeAlias = Literal[
    "price_unheard",
    "volatility_new",
    "liquidations_unheard",
    "liquidations_new",
    "open_interest_unheard",
    "under_way",
    "perhaps_under_way",
    "away",
    "undecided",
]
"""Why nobody can say what became of a forecast; the first five, also of a single minute."""


class ForecastVerdict(Struct, frozen=True, kw_only=True):
    """What became of a forecast.

    Attributes:
        outcome: whether a cascade began in its window; None where that cannot be said.
        ungraded: why it cannot, None where it can; `why` says it in words, else empty.
    """

    id: str
    asset: str
    direction: Direction
    horizon_s: int
    forecast_at: int
    at: int
    probability: float
    outcome: bool | None
    brier: float | None
    log_score: float | None
    ungraded: Ungraded | None = None
    why: str = ""


class Undelivered(Struct, frozen=True):
    """An alert that an address was not told of: its `seq` among the alerts of the asset."""

    alert_seq: int
    url: str
    reason: str


Body: TypeAlias = (
    Depth
    | Heatmap
    | HeatmapRow
    | Liquidation
    | Risk
    | Alert
    | Undelivered
    | Forecast
    | ForecastVerdict
    | Status
)
Kind: TypeAlias = Literal[
    "alerts",
    "depth",
    "forecasts",
    "heatmap",
    "heatmap:log",
    "liquidations",
    "risk",
    "status",
    "undelivered",
]


class Message(Struct, frozen=True, omit_defaults=True):
    """What the engine publishes. `seq` counts from 1 without holes per (kind, asset, venue).

    `asset` is empty for messages about the whole process, `venue` for those about all venues.
    """

    kind: Kind
    asset: str
    seq: int
    at: int
    data: Body
    venue: str = ""

    @property
    def topic(self) -> tuple[str, str, str]:
        """What a later message of replaces this one, if it is state: kind, asset and venue."""
        return self.kind, self.asset, self.venue
