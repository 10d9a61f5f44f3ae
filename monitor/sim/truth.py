"""What nobody outside can know: positions, true liquidation prices, causes; and its export.

The true liquidation price is found by root search on equity minus maintenance, the same two
numbers the engine compares, and never by a formula.
"""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.sim.accounts import Kind
from monitor.sim.liquidation import Liquidation
from monitor.sim.market import Market
from monitor.sim.parameters import Variant
from monitor.sim.rules import MICRO
from monitor.sim.scenarios import Scenario

Table = dict[str, NDArray[Any]]

# Liquidation prices are searched up to this multiple of the mark; beyond it there is none.
_SEARCH = 16
NONE = 0
"""Liquidation tick of a position that no price of its own asset can liquidate."""


def liquidation_ticks(market: Market, rows: NDArray[np.int64], asset: int) -> NDArray[np.int64]:
    """First mark, in ticks, at which each account would be liquidated if only `asset` moved.

    Long positions: the highest such tick at or below the mark; short ones: the lowest at or above.
    `NONE` where there is none. Other positions of a cross account stay at their marks.
    """
    accounts, marks = market.accounts, market.marks.mark
    ticks = marks[accounts.contracts_of(rows)]
    long = accounts.lots[asset, rows] > 0
    safe = ticks[asset].copy()
    bad = np.where(long, 0, safe * _SEARCH)

    def is_liquidated(price: NDArray[np.int64]) -> NDArray[np.bool_]:
        trial = ticks.copy()
        trial[asset] = price
        equity, maintenance = accounts.margin_at(rows, trial)
        return equity <= maintenance

    never = ~is_liquidated(bad)
    now = is_liquidated(safe)
    # Halving an interval of integers: 62 halvings exhaust any of them.
    for _ in range(62):
        if (np.abs(safe - bad) <= 1).all():
            break
        middle = (safe + bad) // 2
        hit = is_liquidated(middle)
        bad = np.where(hit, middle, bad)
        safe = np.where(hit, safe, middle)
    found = np.where(now, ticks[asset], bad)
    return np.where(never & ~now, NONE, found)


def positions(market: Market) -> Table:
    """Every open position of every trader with its true liquidation price, one row each."""
    accounts = market.accounts
    traders = np.nonzero(accounts.is_trader())[0]
    parts: list[Table] = []
    for a, asset in enumerate(market.assets):
        rows = traders[accounts.lots[a, traders] != 0]
        c = accounts.venue[rows] * accounts.assets + a
        tick_usd = np.array([x.tick_usd for x in market.contracts])[c]
        lot_base = np.array([x.lot_base for x in market.contracts])[c]
        lots = accounts.lots[a, rows]
        ticks = liquidation_ticks(market, rows, a)
        equity, maintenance = accounts.margin(rows, market.marks.mark)
        names = np.array([v.name for v in market.venues])
        parts.append(
            {
                "at": np.full(len(rows), market.at),
                "venue": names[accounts.venue[rows]],
                "asset": np.full(len(rows), asset.name),
                "account": accounts.number[rows],
                "is_cross": accounts.kind[rows] == Kind.CROSS,
                "size_base": lots * lot_base,
                "entry_usd": accounts.cost[a, rows] / MICRO / (lots * lot_base),
                "mark_usd": market.marks.mark[c] * tick_usd,
                "notional_usd": np.abs(lots)
                * market.marks.mark[c]
                * accounts.unit[accounts.venue[rows], a]
                / MICRO,
                "equity_usd": equity / MICRO,
                "maintenance_usd": maintenance / MICRO,
                "liquidation_tick": ticks,
                "liquidation_usd": np.where(ticks == NONE, np.nan, ticks * tick_usd),
                "stop_usd": np.where(
                    accounts.stop[a, rows] == 0, np.nan, accounts.stop[a, rows] * tick_usd
                ),
            }
        )
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def liquidations(market: Market, records: Iterable[Liquidation]) -> Table:
    """Records of the engine as columns, prices in USD and sizes in base units."""
    rows = list(records)
    contracts = [market.contract(r.venue, r.asset) for r in rows]
    tick = np.array([c.tick_usd for c in contracts])
    lot = np.array([c.lot_base for c in contracts])

    def column(name: str) -> NDArray[Any]:
        return np.array([getattr(r, name) for r in rows])

    table: Table = {
        name: column(name) for name in ("at", "venue", "asset", "account", "side", "is_final")
    }
    for name in ("lots", "filled", "taken", "adl"):
        table[f"{name.replace('lots', 'size')}_base"] = column(name) * lot
    for name in ("trigger", "bankruptcy", "fill"):
        table[f"{name}_usd"] = column(f"{name}_tick") * tick
    table["fund_loss_usd"] = column("fund_loss") / MICRO
    return table


def write_parquet(table: Table, path: Path) -> None:
    """Write one table as Parquet; needs the optional dependency pyarrow."""
    # Optional and heavy: only whoever exports pays for it.
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    parquet.write_table(arrow.table(table), path)


class Twin(Struct, frozen=True):
    """Two runs with the same chance: as it happened, and without forced orders' impact.

    `actual` and `without` are log prices relative to the start, shape (steps, assets);
    `liquidated_usd` is what the actual run force-closed at each step, shape (steps, assets).
    """

    step_ms: int
    actual: NDArray[np.float64]
    without: NDArray[np.float64]
    liquidated_usd: NDArray[np.float64]
    records: list[Liquidation]

    @property
    def endogenous(self) -> NDArray[np.float64]:
        """The displacement that forced orders caused, as log price, shape (steps, assets)."""
        result: NDArray[np.float64] = self.actual - self.without
        return result


def run_with_twin(
    scenario: Scenario,
    *,
    seed: int,
    duration_s: float,
    step_ms: int = 1_000,
    variant: Variant = "first",
    population: float = 1.0,
) -> Twin:
    """Run the scenario twice with the same random numbers and compare."""
    records: list[Liquidation] = []
    runs: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for impact in (True, False):
        market = Market(
            scenario,
            seed=seed,
            step_ms=step_ms,
            variant=variant,
            impact=impact,
            population=population,
        )
        found = _run(market, round(duration_s * 1_000 / step_ms), records if impact else [])
        runs.append(found)
    (actual, liquidated), (without, _) = runs
    return Twin(
        step_ms=step_ms,
        actual=actual,
        without=without,
        liquidated_usd=liquidated,
        records=records,
    )


def _run(
    market: Market, steps: int, records: list[Liquidation]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log prices and force-closed USD, both (steps, assets); appends to `records`."""
    path = np.zeros((steps, len(market.assets)))
    liquidated = np.zeros_like(path)
    for i in range(steps):
        step = market.step()
        path[i] = market.log_price()
        records.extend(step.liquidations)
        for r in step.liquidations:
            contract = market.contract(r.venue, r.asset)
            usd = r.lots * r.trigger_tick * contract.unit / MICRO
            liquidated[i, contract.asset_index] += usd
    return path, liquidated
