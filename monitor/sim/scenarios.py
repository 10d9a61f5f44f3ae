"""The named scenarios: what happens from outside to a market that is otherwise left alone.

A scenario never orders a liquidation. It sets the stage (thin book, crowded positions) and pulls
a trigger (news, a large order, a depeg); whether a cascade follows is up to the market.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from monitor.sim.chance import generator
from monitor.sim.parameters import VARIANTS, Parameters, Variant

Name = Literal["calm", "grind", "crash", "squeeze", "depeg", "venue-outage", "wick", "random"]


class News(Struct, frozen=True):
    """The fundamental price of `asset` (None: all, times beta) moves by log `move` in `over_s`."""

    start_s: float
    over_s: float
    move: float
    asset: str | None = None


class LargeOrder(Struct, frozen=True):
    """Somebody trades `depth_ratio` times the normal 1 % depth of every venue, in `over_s`."""

    start_s: float
    over_s: float
    depth_ratio: float
    side: Literal["buy", "sell"]
    asset: str | None = None


class Outage(Struct, frozen=True):
    """The venue's feeds are silent and arbitrageurs cannot reach it; its engine keeps running."""

    venue: str
    start_s: float
    over_s: float


class Depeg(Struct, frozen=True):
    """The alternative collateral of `venue` falls by ratio `depth` over `fall_s`, then recovers."""

    venue: str
    start_s: float
    fall_s: float
    hold_s: float
    rise_s: float
    depth: float
    collateral_share: float


class Scenario(Struct, frozen=True):
    """A named stage and its triggers; `overrides` replace fields of `Parameters`."""

    name: Name
    about: str
    overrides: dict[str, Any]
    news: tuple[News, ...] = ()
    orders: tuple[LargeOrder, ...] = ()
    outages: tuple[Outage, ...] = ()
    depegs: tuple[Depeg, ...] = ()

    def parameters(self, variant: Variant = "first") -> Parameters:
        """The variant's parameters with this scenario's overrides."""
        return msgspec.structs.replace(VARIANTS[variant], **self.overrides)


# Thin books and positions bunched near the price are what both cascades need: the loop gain is
# liquidations per basis point over absorbable depth per basis point (model.md section 0).
_FRAGILE: dict[str, Any] = {
    "depth_scale": 0.85,
    "survival_slope": 0.065,
    "survival_floor": 0.12,
    "engine_throughput": 0.04,
    "value_arrival_s": 60.0,
    "life_s": 4 * 86_400.0,
    "survival_noise_sd": 0.0,
    "contagion": 0.15,
    "spot_follow": 0.9,
    "spot_follow_s": 5.0,
    "crowd_share": 0.12,
    "volatility_scale": 0.7,
    "volatility_sd": 0.2,
    "jumps_per_day": 0.0,
    # The trigger comes at once, so that what follows it is the cascade's own.
    "slow_news_share": 0.0,
    "slow_news_sd": 0.0,
}
_QUIET: dict[str, Any] = {
    "depth_scale": 2.0,
    "volatility_scale": 0.5,
    "jumps_per_day": 0.0,
    "volatility_sd": 0.2,
}
_CRASH_NEWS = (News(start_s=60.0, over_s=20.0, move=-0.007),)

CALM = Scenario("calm", "an uneventful market", _QUIET)
GRIND = Scenario(
    "grind",
    "a slow decline that closes longs one by one without a cascade",
    _QUIET | {"depth_scale": 2.6},
    news=(News(start_s=30.0, over_s=5_400.0, move=-0.03),),
)
CRASH = Scenario("crash", "a cascade of long liquidations", _FRAGILE, news=_CRASH_NEWS)
SQUEEZE = Scenario(
    "squeeze",
    "a cascade of short liquidations",
    # Half as many directional shorts as longs exist, so the crowd is a larger share of them.
    _FRAGILE | {"crowd_side": "short", "crowd_share": 0.25, "long_bias": -0.4},
    news=(News(start_s=60.0, over_s=20.0, move=0.007),),
)
DEPEG = Scenario(
    "depeg",
    "the alternative collateral of one venue loses four fifths of its value",
    # Longs who entered lately and stand on that collateral: without them the depeg would only
    # reach whoever is under water already, which after a rally is the shorts.
    _QUIET | {"depth_scale": 1.2, "crowd_share": 0.15, "crowd_cross": True},
    depegs=(
        Depeg(
            venue="binance",
            start_s=60.0,
            fall_s=90.0,
            hold_s=600.0,
            rise_s=600.0,
            depth=0.8,
            collateral_share=0.95,
        ),
    ),
)
OUTAGE = Scenario(
    "venue-outage",
    "a cascade of longs in whose middle one venue goes silent",
    _FRAGILE,
    news=_CRASH_NEWS,
    outages=(Outage(venue="bybit", start_s=90.0, over_s=90.0),),
)
WICK = Scenario(
    "wick",
    "large orders push the perpetuals away from spot; the mark lags behind",
    _QUIET | {"spot_follow": 0.05},
    orders=(LargeOrder(start_s=60.0, over_s=15.0, depth_ratio=2.4, side="sell"),),
)

SCENARIOS: dict[Name, Scenario] = {
    s.name: s for s in (CALM, GRIND, CRASH, SQUEEZE, DEPEG, OUTAGE, WICK)
}
"""All fixed scenarios; `random` is drawn by `scenario`."""

NAMES: tuple[Name, ...] = (*SCENARIOS, "random")


def scenario(name: Name, seed: int = 0) -> Scenario:
    """The scenario of that name; `random` depends on the seed, the others do not."""
    return _random(seed) if name == "random" else SCENARIOS[name]


def _random(seed: int) -> Scenario:
    """A market of random fragility with a few news at random times of its first six hours."""
    draw = generator(seed, "scenario")
    count = int(draw.integers(1, 5))
    moves = 0.006 * draw.standard_t(3, count)
    starts = draw.uniform(60.0, 21_600.0, count)
    news = tuple(
        News(start_s=float(start), over_s=30.0, move=float(min(max(move, -0.04), 0.04)))
        for start, move in sorted(zip(starts, moves, strict=True))
    )
    overrides: dict[str, Any] = {
        "depth_scale": float(draw.uniform(0.5, 1.4)),
        "crowd_share": float(draw.uniform(0.0, 0.15)),
        "crowd_side": "long" if draw.random() < 0.7 else "short",
        "volatility_scale": float(draw.uniform(0.5, 1.6)),
    }
    return Scenario("random", "random fragility, random news", overrides, news=news)
