"""The simulated venues' rules: contracts, ticks, lots, margin tiers, mark and liquidation rules.

The tables are venue-like and belong to the simulator; they are deliberately not those of
`monitor.venues`, so that an error in one shows against the other. Money is in micro-USD.
"""

from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

MICRO = 1_000_000
"""Micro-USD in a USD, and parts per million in one."""

LiquidationRule = Literal["binance", "bybit", "okx", "hyperliquid"]


class Tier(Struct, frozen=True):
    """One row of a maintenance table: it holds for positions larger than `floor`.

    `floor` is in USD of notional, or in base units where the venue counts contracts (OKX).
    """

    floor: float
    rate_ppm: int


class Contract(Struct, frozen=True):
    """A linear perpetual of one venue; `unit` is the micro-USD value of one lot for one tick."""

    index: int
    venue: str
    venue_index: int
    asset: str
    asset_index: int
    tick_usd: float
    lot_base: float
    unit: int


class Venue(Struct, frozen=True):
    """What a venue prescribes.

    `maintenance_fee_ppm` is the close fee that the venue adds to maintenance (exchanges.md 0.4),
    `liquidation_fee_ppm` the fee on force-closed notional, which goes to the insurance fund.
    `keeps_remainder` says who owns what is left of the margin after a forced close: the fund
    (Bybit, OKX) or the trader (Binance, Hyperliquid).
    """

    name: str
    rule: LiquidationRule
    share: float
    funding_interval_s: int
    taker_fee_ppm: int
    maintenance_fee_ppm: int
    liquidation_fee_ppm: int
    keeps_remainder: bool
    tiers_by_size: bool
    has_deduction: bool
    tick_usd: dict[str, float]
    lot_base: dict[str, float]
    tiers: dict[str, tuple[Tier, ...]]


def _tiers(*rows: tuple[float, int]) -> tuple[Tier, ...]:
    return tuple(Tier(floor, rate) for floor, rate in rows)


_TICKS = {"BTC": 0.1, "ETH": 0.01, "SOL": 0.01}

# Binance Q4-2025 brackets (exchanges.md 1g); SOL is a lower ladder of the same shape.
_BINANCE_BTC = _tiers(
    (0, 4_000), (300e3, 5_000), (800e3, 6_500), (3e6, 10_000), (12e6, 20_000), (70e6, 50_000)
)
_BINANCE_ETH = _tiers(
    (0, 4_000), (300e3, 5_000), (800e3, 6_500), (3e6, 10_000), (12e6, 20_000), (50e6, 50_000)
)
_BINANCE_SOL = _tiers((0, 5_000), (100e3, 6_500), (500e3, 10_000), (2e6, 20_000), (10e6, 50_000))
# Bybit's captured first three rows (exchanges.md 2g); the rows above them are continued here.
_BYBIT_BTC = _tiers((0, 3_300), (300e3, 5_000), (800e3, 10_000), (2e6, 15_000), (12e6, 25_000))
_BYBIT_SOL = _tiers((0, 5_000), (200e3, 7_500), (800e3, 15_000), (3e6, 25_000))
# OKX counts contracts: tier 1 of BTC ends at 10 BTC, of ETH at 500 ETH (exchanges.md 3g).
_OKX_BTC = _tiers((0, 4_000), (10, 5_000), (25, 10_000), (60, 15_000), (150, 25_000))
_OKX_ETH = _tiers((0, 4_000), (500, 5_000), (1_000, 10_000), (2_000, 15_000), (5_000, 25_000))
_OKX_SOL = _tiers((0, 5_000), (2_500, 6_500), (6_000, 12_000), (15_000, 20_000), (40_000, 30_000))

VENUES: tuple[Venue, ...] = (
    Venue(
        name="binance",
        rule="binance",
        share=0.38,
        funding_interval_s=28_800,
        taker_fee_ppm=500,
        maintenance_fee_ppm=0,
        liquidation_fee_ppm=12_500,
        keeps_remainder=False,
        tiers_by_size=False,
        has_deduction=True,
        tick_usd=_TICKS,
        lot_base={"BTC": 0.001, "ETH": 0.001, "SOL": 0.01},
        tiers={"BTC": _BINANCE_BTC, "ETH": _BINANCE_ETH, "SOL": _BINANCE_SOL},
    ),
    Venue(
        name="bybit",
        rule="bybit",
        share=0.24,
        funding_interval_s=28_800,
        taker_fee_ppm=550,
        maintenance_fee_ppm=550,
        liquidation_fee_ppm=0,
        keeps_remainder=True,
        tiers_by_size=False,
        has_deduction=True,
        tick_usd=_TICKS,
        lot_base={"BTC": 0.001, "ETH": 0.01, "SOL": 0.1},
        tiers={"BTC": _BYBIT_BTC, "ETH": _BYBIT_BTC, "SOL": _BYBIT_SOL},
    ),
    Venue(
        name="okx",
        rule="okx",
        share=0.19,
        funding_interval_s=28_800,
        taker_fee_ppm=500,
        maintenance_fee_ppm=500,
        liquidation_fee_ppm=0,
        keeps_remainder=True,
        tiers_by_size=True,
        has_deduction=False,
        tick_usd=_TICKS,
        # ctVal x lotSz of the live rows (exchanges.md 3g): 0.01 x 0.01, 0.1 x 0.01, 1 x 0.01.
        lot_base={"BTC": 0.0001, "ETH": 0.001, "SOL": 0.01},
        tiers={"BTC": _OKX_BTC, "ETH": _OKX_ETH, "SOL": _OKX_SOL},
    ),
    Venue(
        name="hyperliquid",
        rule="hyperliquid",
        share=0.19,
        funding_interval_s=3_600,
        taker_fee_ppm=450,
        maintenance_fee_ppm=0,
        liquidation_fee_ppm=0,
        keeps_remainder=False,
        tiers_by_size=False,
        has_deduction=True,
        tick_usd={"BTC": 1.0, "ETH": 0.1, "SOL": 0.01},
        lot_base={"BTC": 0.00001, "ETH": 0.0001, "SOL": 0.01},
        tiers={
            "BTC": _tiers((0, 12_500), (150e6, 25_000)),
            "ETH": _tiers((0, 20_000), (100e6, 33_333)),
            "SOL": _tiers((0, 25_000), (70e6, 50_000)),
        },
    ),
)


def contracts_of(venues: tuple[Venue, ...], assets: tuple[str, ...]) -> tuple[Contract, ...]:
    """Every venue's contract on every asset, venue-major: index = venue * len(assets) + asset."""
    contracts: list[Contract] = []
    for v, venue in enumerate(venues):
        for a, asset in enumerate(assets):
            exact = venue.tick_usd[asset] * venue.lot_base[asset] * MICRO
            unit = round(exact)
            assert abs(exact - unit) < 1e-6, (venue.name, asset, exact)
            assert unit > 0, (venue.name, asset, exact)
            contracts.append(
                Contract(
                    index=len(contracts),
                    venue=venue.name,
                    venue_index=v,
                    asset=asset,
                    asset_index=a,
                    tick_usd=venue.tick_usd[asset],
                    lot_base=venue.lot_base[asset],
                    unit=unit,
                )
            )
    return tuple(contracts)


class TierTable:
    """Maintenance margin of any (venue, asset, position), vectorised, in integer micro-USD.

    Maintenance is ``notional * (rate + fee) - deduction``; the deduction makes it continuous where
    the venue has one, and is zero on OKX, whose rate is flat on the whole position.
    """

    def __init__(self, venues: tuple[Venue, ...], contracts: tuple[Contract, ...]) -> None:
        depth = max(len(t) for v in venues for t in v.tiers.values())
        count = len(contracts)
        big = np.iinfo(np.int64).max
        self.floor: NDArray[np.int64] = np.full((count, depth), big, dtype=np.int64)
        self.rate_ppm: NDArray[np.int64] = np.zeros((count, depth), dtype=np.int64)
        self.deduction: NDArray[np.int64] = np.zeros((count, depth), dtype=np.int64)
        self.by_size = np.array([venues[c.venue_index].tiers_by_size for c in contracts])
        self.rows = [len(venues[c.venue_index].tiers[c.asset]) for c in contracts]
        self.depth = depth
        self._steps: list[list[tuple[int, int, int]]] = []
        for contract in contracts:
            venue = venues[contract.venue_index]
            before, deduction = 0, 0
            for i, tier in enumerate(venue.tiers[contract.asset]):
                scale = 1 / contract.lot_base if venue.tiers_by_size else MICRO
                floor = round(tier.floor * scale)
                if venue.has_deduction:
                    deduction += floor * (tier.rate_ppm - before) // MICRO
                self.floor[contract.index, i] = floor
                self.rate_ppm[contract.index, i] = tier.rate_ppm + venue.maintenance_fee_ppm
                self.deduction[contract.index, i] = deduction
                before = tier.rate_ppm
        for c, rows in enumerate(self.rows):
            columns = (self.floor[c], self.rate_ppm[c], self.deduction[c])
            steps = zip(*(column[:rows].tolist() for column in columns), strict=True)
            self._steps.append(list(steps))

    def tier(
        self, contract: NDArray[np.int64], lots: NDArray[np.int64], value: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Row of the table for positions of `lots` worth `value` micro-USD (both unsigned)."""
        measure = np.where(self.by_size[contract], lots, value)
        found = np.zeros(len(measure), dtype=np.int64)
        for i in range(1, self.depth):
            found += measure > self.floor[contract, i]
        return found

    def maintenance(
        self, contract: NDArray[np.int64], lots: NDArray[np.int64], value: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Maintenance margin of positions of `lots` worth `value`, micro-USD, rounded up.

        The product is taken in thousandths of a USD, because micro-USD times parts per million
        leaves 64 bits at a 9 M USD position.
        """
        row = self.tier(contract, lots, value)
        whole = (value // 1_000) * self.rate_ppm[contract, row]
        return -(-whole // 1_000) - self.deduction[contract, row]

    def maintenance_of(self, c: int, lots: int, value: int) -> int:
        """As `maintenance` for one position of contract `c`."""
        measure = lots if self.by_size[c] else value
        steps = self._steps[c]
        i = len(steps) - 1
        while i > 0 and measure <= steps[i][0]:
            i -= 1
        _, rate, deduction = steps[i]
        return -(-(value // 1_000 * rate) // 1_000) - deduction
