"""Every number of the simulated market, with its source; scenarios override some of them.

Sources named [C1], [A7], ... are sections of docs/model.md; numbers without a source were tuned
with the realism gate (`monitor.sim.realism`).
"""

from typing import Literal

from msgspec import Struct

Variant = Literal["first", "second"]

LEVEL = 1e-4
"""Log-price distance between two neighbouring price levels of a book (1 basis point)."""


class Asset(Struct, frozen=True):
    """One underlying: where it starts, how it moves, how much of it is held and quoted.

    `depth_usd` rests within 1 % of one side's touch and `open_interest_usd` is one-sided, both
    over all venues; `volatility_daily` is the log standard deviation of a day.
    """

    name: str
    price_usd: float
    volatility_daily: float
    open_interest_usd: float
    depth_usd: float
    beta: float


ASSETS: tuple[Asset, ...] = (
    Asset("BTC", 100_000.0, 0.034, 2.1e9, 30e6, 1.0),
    Asset("ETH", 3_500.0, 0.044, 1.1e9, 15e6, 1.25),
    Asset("SOL", 200.0, 0.054, 0.45e9, 6e6, 1.5),
)


class Parameters(Struct, frozen=True):
    """The market's constants; times in seconds, ratios as fractions, money in USD."""

    # Fundamental: log-AR volatility and jumps [C1].
    volatility_half_life_s: float = 28_800.0
    volatility_sd: float = 0.75
    volatility_scale: float = 1.05
    jumps_per_day: float = 4.0
    jump_size: float = 0.006
    # News is digested in two stages: this share over minutes, the rest at once; the share varies
    # as `share ** exp(sd * normal)`.
    slow_news_share: float = 0.5
    slow_news_sd: float = 0.8
    slow_news_s: float = 300.0
    # Volatility and jumps feed on jumps: a shock is digested in minutes, not at once.
    unrest_gain: float = 0.2
    unrest_max: float = 3.0
    unrest_s: float = 600.0
    common_share: float = 0.6
    common_share_stress: float = 0.85

    # Book: W(u/1 %)^kappa + (u/3.5 %)^3 per A0 [C1]; survival W follows |z| of a minute [A7].
    book_law: Literal["power", "linear"] = "power"
    kappa: float = 1.16
    deep_reach: float = 0.035
    deep_share: float = 1.0
    depth_scale: float = 1.0
    survival_slope: float = 0.063
    survival_floor: float = 0.12
    # Over this time makers learn what a usual minute is.
    memory_s: float = 10_000.0
    survival_noise_sd: float = 0.3
    survival_noise_s: float = 3_600.0
    survival_fall_s: float = 5.0
    survival_rise_s: float = 75.0
    level_noise_sd: float = 0.6
    cancel_s: float = 3.0
    refill_s: float = 5.0
    resilience_s: float = 45.0
    # Hidden value buyers take this long to come (`Books.hide`); timid hours make them slower.
    value_arrival_s: float = 30.0
    anchoring: float = 0.5
    permanent_share: float = 0.1

    # Voluntary flow [C1].
    flow_law: Literal["autoregressive", "hawkes"] = "autoregressive"
    churn_per_day: float = 6.0
    imbalance_s: float = 33.0
    imbalance_sd: float = 0.16
    hawkes_branching: float = 0.7
    hawkes_s: float = 20.0

    # Directional traders [C1].
    size_median_usd: float = 15_000.0
    size_sigma: float = 1.6
    size_cap_usd: float = 2e6
    life_s: float = 1.5 * 86_400.0
    loss_exit_ratio: float = 0.67
    trend_slope: float = 0.8
    # Even in a crash some buy the dip: the trend moves the side's log-odds by at most this.
    trend_lean_max: float = 1.5
    # Activity per unit of heat: the five-minute mean of |z| above its usual size.
    heat_gain: float = 4.5
    heat_max: float = 30.0
    heat_s: float = 300.0
    # Of the heat this share brings new traders, who are out again after `storm_life_s`.
    storm_entries: float = 0.1
    storm_life_s: float = 300.0
    # Holders in profit close so many times as often per unit of heat, against makers' burden only.
    profit_gain: float = 2.5
    # Makers keep so much of the open interest before they hand on what a storm left them with.
    maker_share: float = 0.005
    # Whoever was closed out is back within this time.
    return_s: float = 6 * 3_600.0
    long_bias: float = 0.2
    taker_share: float = 0.6
    cross_share: float = 0.5
    slow_share: float = 0.6
    stop_share: float = 0.3
    stop_distance: float = 0.6
    hedged_share: float = 0.3

    # Populated history at the start.
    history_s: float = 15 * 86_400.0
    crowd_side: Literal["long", "short"] = "long"
    crowd_share: float = 0.0
    # Whether the crowd stands on cross margin, and so on its alternative collateral.
    crowd_cross: bool = False
    crowd_entry: float = 0.004
    crowd_width: float = 0.003
    crowd_leverage: tuple[float, ...] = (20.0, 25.0, 33.0, 50.0)

    # Coupling: arbitrage between venues, spot following the perpetuals, assets following others.
    arbitrage_latency_s: float = 0.4
    arbitrage_threshold: float = 2e-4
    arbitrage_capital: float = 0.03
    spot_follow: float = 0.75
    spot_follow_s: float = 40.0
    contagion: float = 0.1

    # Engine, fund and band.
    engine_throughput: float = 0.3
    price_band: float = 0.05
    fund_share: float = 0.004
    fund_unwind_s: float = 900.0


FIRST = Parameters()
"""The default market."""

SECOND = Parameters(
    book_law="linear",
    flow_law="hawkes",
    imbalance_sd=0.25,
    size_median_usd=8_000.0,
    size_sigma=2.0,
    size_cap_usd=10e6,
)
"""Another depth law, self-exciting flow and whales, against tuning to our own assumptions [C1]."""

VARIANTS: dict[Variant, Parameters] = {"first": FIRST, "second": SECOND}
