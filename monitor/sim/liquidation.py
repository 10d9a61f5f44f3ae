"""The liquidation engine: who is below maintenance, and what each venue then does with them.

Rules are those of docs/exchanges.md, sections 1h, 2h, 3h and 4h. An account is taken when its
equity is at or below its maintenance margin at the venue's mark; no liquidation price is used.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.sim.accounts import Kind
from monitor.sim.exchange import Exchange, Side, Transfer
from monitor.sim.parameters import Parameters
from monitor.sim.rules import MICRO

NS = 1_000_000_000

# Hyperliquid: positions above 100 k USDC are first sold to 20 %, the rest after 30 s (4h).
_LARGE_USD = 100_000
_FIRST_SHARE = 5
_COOLDOWN_NS = 30 * NS


class Liquidation(Struct, frozen=True):
    """One forced close: what the engine was asked to close, why, and where it went.

    `lots` is what this step set out to close, of which `filled` found the book at the average
    price `fill_tick` (fractional ticks, 0 when none), `taken` went to the insurance fund and
    `adl` to opposite accounts, both at `bankruptcy_tick`. `is_final` says that nothing of the
    position is left. `fund_loss` is what the fund lost on it at mark, micro-USD, 0 if it gained.
    """

    at: int
    venue: str
    asset: str
    account: int
    side: Side
    lots: int
    trigger_tick: int
    bankruptcy_tick: int
    filled: int
    fill_tick: float
    taken: int
    adl: int
    fund_loss: int
    is_partial: bool
    is_final: bool


class _Close(Struct, frozen=True):
    """One position about to be closed: signed `held` lots of contract `c` in account `row`."""

    row: int
    c: int
    held: int
    bankruptcy: int
    equity: int
    maintenance: int


class LiquidationEngine:
    """All venues' engines; call `run` once a step after the marks have moved."""

    def __init__(self, exchange: Exchange, parameters: Parameters, depth_usd: list[float]) -> None:
        self._exchange = exchange
        self._band = parameters.price_band
        self._unwind_s = parameters.fund_unwind_s
        self._throughput = [round(MICRO * usd * parameters.engine_throughput) for usd in depth_usd]
        self.backlog = 0
        self.records: list[Liquidation] = []
        self._queues: dict[tuple[int, int], list[int]] = {}
        self._rules = {
            "binance": self._whole,
            "bybit": self._bybit,
            "okx": self._okx,
            "hyperliquid": self._hyperliquid,
        }

    # -------------------------------------------------------------------------------- scan

    def run(self, rows: NDArray[np.int64], step_s: float) -> None:
        """Examine `rows` and act on those below maintenance, the most under water first.

        The engines' throughput is bounded per contract; whoever does not get his turn stays in
        the queue (`backlog` accounts) and is examined again at the next step.
        """
        exchange = self._exchange
        accounts = exchange.accounts
        equity, maintenance = accounts.margin(rows, exchange.marks)
        held = accounts.lots[:, rows].any(axis=0)
        # Who cools down on Hyperliquid is left alone until then or until the backstop.
        cools = (accounts.resume_at[rows] > exchange.at) & (3 * equity >= 2 * maintenance)
        due = np.nonzero(held & (equity <= maintenance) & ~cools)[0]
        order = due[np.argsort(equity[due] / maintenance[due], kind="stable")]
        self.backlog = 0
        self._queues.clear()
        if not len(order):
            return
        queue, largest = rows[order], self._largest(rows[order])
        for c, throughput in enumerate(self._throughput):
            left = round(throughput * step_s)
            waiting: list[int] = queue[largest == c].tolist()
            # At least one position a step, however short the step and large the position.
            for done, row in enumerate(waiting):
                if left <= 0:
                    self.backlog += len(waiting) - done
                    break
                left -= self._liquidate(row, c)

    def _largest(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Contract of each account's largest position at mark; cross accounts lose that first."""
        accounts = self._exchange.accounts
        contract = accounts.contracts_of(rows)
        lot_value = self._exchange.marks[contract] * accounts.unit[accounts.venue[rows]].T
        biggest = np.argmax(np.abs(accounts.lots[:, rows]) * lot_value, axis=0)
        found: NDArray[np.int64] = contract[biggest, np.arange(len(rows))]
        return found

    def _liquidate(self, row: int, c: int) -> int:
        """Close what the venue's rule says; returns the micro-USD that were at stake."""
        exchange = self._exchange
        accounts, contract = exchange.accounts, exchange.contracts[c]
        equity, maintenance = accounts.margin_of(row, exchange.marks)
        held = int(accounts.lots[contract.asset_index, row])
        if held == 0 or equity > maintenance:
            # Somebody's auto-deleveraging reached this account while it stood in the queue.
            return 0
        close = _Close(row, c, held, self.bankruptcy_tick(c, held, equity), equity, maintenance)
        rule = exchange.venues[contract.venue_index].rule
        lots = self._rules[rule](close)
        if lots:
            self._execute(close, lots)
            self._settle(row)
        return abs(exchange.value(c, lots))

    def bankruptcy_tick(self, c: int, held: int, equity: int) -> int:
        """Price at which the account's equity is zero, other positions at mark, in ticks.

        Rounded so that a close there leaves at least zero.
        """
        unit, mark = self._exchange.contracts[c].unit, int(self._exchange.marks[c])
        if held > 0:
            return max(1, mark + -(equity // (held * unit)))
        return max(1, mark + equity // (-held * unit))

    # ------------------------------------------------------------------- the venues' rules

    def _whole(self, close: _Close) -> int:
        """Binance (1h): one IOC order for everything, limited at the bankruptcy price."""
        return abs(close.held)

    def _bybit(self, close: _Close) -> int:
        """Bybit (2h): above the lowest tier a fill-or-kill order steps one tier down, if it can."""
        tier = self._tier(close)
        if tier == 0:
            return abs(close.held)
        exchange = self._exchange
        tiers = exchange.accounts.tiers
        lot_value = int(exchange.marks[close.c]) * exchange.contracts[close.c].unit
        lots = abs(close.held) - int(tiers.floor[close.c, tier]) // lot_value
        reachable = exchange.books.available(close.c, buy=close.held < 0, limit=self._limit(close))
        # Equity below what the lowest tier asks cannot be rescued by a smaller position.
        if close.equity <= 0 or reachable < lots or not exchange.forced_impact:
            return abs(close.held)
        return min(lots, abs(close.held))

    def _okx(self, close: _Close) -> int:
        """OKX (3h): from tier 3 on the position is cut by two tiers while that can still help."""
        tier = self._tier(close)
        tiers = self._exchange.accounts.tiers
        value = abs(self._exchange.value(close.c, close.held))
        lowest = value * int(tiers.rate_ppm[close.c, 0]) // MICRO
        if tier < 2 or close.equity <= lowest:
            return abs(close.held)
        return abs(close.held) - int(tiers.floor[close.c, tier - 1])

    def _hyperliquid(self, close: _Close) -> int:
        """Hyperliquid (4h): a fifth first if large, the rest 30 s later, backstop below 2/3."""
        exchange = self._exchange
        if 3 * close.equity < 2 * close.maintenance:
            return abs(close.held)
        resume_at = int(exchange.accounts.resume_at[close.row])
        if resume_at > exchange.at:
            return 0
        value = abs(exchange.value(close.c, close.held))
        # An old cooldown belongs to an earlier episode that the account survived.
        is_first = resume_at == 0 or exchange.at - resume_at > 20 * _COOLDOWN_NS
        if is_first and value > _LARGE_USD * MICRO:
            exchange.accounts.resume_at[close.row] = exchange.at + _COOLDOWN_NS
            return -(-abs(close.held) // _FIRST_SHARE)
        return abs(close.held)

    def _tier(self, close: _Close) -> int:
        value = abs(self._exchange.value(close.c, close.held))
        tiers = self._exchange.accounts.tiers
        held = np.array([abs(close.held)])
        return int(tiers.tier(np.array([close.c]), held, np.array([value]))[0])

    def _limit(self, close: _Close) -> int:
        """The worst price of the order: bankruptcy, but no further than the venue's band."""
        mark = int(self._exchange.marks[close.c])
        if close.held > 0:
            return max(close.bankruptcy, round(mark * (1 - self._band)))
        return min(close.bankruptcy, round(mark * (1 + self._band)))

    # --------------------------------------------------------------------------- execution

    def _execute(self, close: _Close, lots: int) -> None:
        """Order into the book, then takeover by the fund, then auto-deleveraging."""
        exchange = self._exchange
        contract = exchange.contracts[close.c]
        venue = exchange.venues[contract.venue_index]
        sign = 1 if close.held > 0 else -1
        backstop = venue.rule == "hyperliquid" and 3 * close.equity < 2 * close.maintenance
        partial = lots < abs(close.held)
        filled, tick_lots = 0, 0
        if close.equity > 0 and not backstop:
            fill = exchange.forced_order(close.row, close.c, -sign * lots, limit=self._limit(close))
            filled, tick_lots = fill.lots, fill.tick_lots
            self._charge(close.row, tick_lots * contract.unit, venue.liquidation_fee_ppm)
        # A partial order that found no buyers is tried again; a whole position never waits,
        # except on Hyperliquid, where the backstop takes it once its equity has fallen further.
        rest = 0 if partial or (venue.rule == "hyperliquid" and not backstop) else lots - filled
        taken, adl, loss = self._take_over(close, sign * rest)
        held = int(exchange.accounts.lots[contract.asset_index, close.row])
        self.records.append(
            Liquidation(
                at=exchange.at,
                venue=contract.venue,
                asset=contract.asset,
                account=int(exchange.accounts.number[close.row]),
                side="long" if sign > 0 else "short",
                lots=lots,
                trigger_tick=int(exchange.marks[close.c]),
                bankruptcy_tick=close.bankruptcy,
                filled=filled,
                fill_tick=tick_lots / filled if filled else 0.0,
                taken=taken,
                adl=adl,
                fund_loss=loss,
                is_partial=partial,
                is_final=held == 0,
            )
        )

    def _charge(self, row: int, value: int, fee_ppm: int) -> None:
        """The liquidation fee, as far as the margin reaches, goes to the fund."""
        exchange = self._exchange
        equity = exchange.accounts.equity_of(row, exchange.marks)
        fee = max(0, min(value * fee_ppm // MICRO, equity, int(exchange.accounts.cash[row])))
        self._to_fund(row, fee)

    def _take_over(self, close: _Close, lots: int) -> tuple[int, int, int]:
        """The fund takes signed `lots` at bankruptcy if it can pay, else opposite accounts do.

        Returns lots taken, lots deleveraged and the fund's loss at mark.
        """
        if lots == 0:
            return 0, 0, 0
        exchange = self._exchange
        contract = exchange.contracts[close.c]
        fund = exchange.accounts.role(contract.venue_index, Kind.FUND)
        gain = lots * (int(exchange.marks[close.c]) - close.bankruptcy) * contract.unit
        if exchange.accounts.equity_of(fund, exchange.marks) + gain >= 0:
            exchange.move(close.row, fund, close.c, lots, close.bankruptcy)
            self._note("takeover", close, fund, lots)
            return abs(lots), 0, max(0, -gain)
        self._deleverage(close, lots)
        return 0, abs(lots), 0

    def _deleverage(self, close: _Close, lots: int) -> None:
        """Close signed `lots` against the most profitable, most leveraged opposite accounts."""
        exchange = self._exchange
        sign = 1 if lots > 0 else -1
        left = abs(lots)
        contract = exchange.contracts[close.c]
        queue = self._queues.get((close.c, sign))
        if queue is None:
            queue = self._queues[close.c, sign] = self._opposite(close, sign)
        while queue:
            row = queue[-1]
            held = -sign * int(exchange.accounts.lots[contract.asset_index, row])
            size = min(left, held)
            if size <= 0:
                # Closed since the queue was drawn up, by its own liquidation.
                queue.pop()
                continue
            exchange.move(close.row, row, close.c, sign * size, close.bankruptcy)
            self._note("adl", close, row, sign * size)
            left -= size
            if not exchange.accounts.lots[:, row].any() and exchange.accounts.is_trader()[row]:
                exchange.accounts.close(row)
            if left == 0:
                return
        # Nobody else is opposite: the makers are everybody's last counterparty.
        maker = exchange.accounts.role(contract.venue_index, Kind.MAKER)
        exchange.move(close.row, maker, close.c, sign * left, close.bankruptcy)
        self._note("adl", close, maker, sign * left)

    def _opposite(self, close: _Close, sign: int) -> list[int]:
        """Opposite accounts, the last one first to pay: profit ratio times effective leverage.

        Venues publish such queues and refresh them now and then; here it is once a step.
        """
        exchange = self._exchange
        accounts, contract = exchange.accounts, exchange.contracts[close.c]
        a = contract.asset_index
        kind = accounts.kind[: accounts.count]
        may = (kind == Kind.ISOLATED) | (kind == Kind.CROSS) | (kind == Kind.CARRY)
        may &= accounts.venue[: accounts.count] == contract.venue_index
        may &= accounts.lots[a, : accounts.count] * sign < 0
        rows = np.nonzero(may)[0]
        value = np.abs(accounts.lots[a, rows]) * (int(exchange.marks[close.c]) * contract.unit)
        profit = -sign * value - accounts.cost[a, rows]
        equity = np.maximum(accounts.margin(rows, exchange.marks)[0], 1)
        score = profit / np.maximum(np.abs(accounts.cost[a, rows]), 1) * (value / equity)
        # A large negative score stays behind every winner whatever its leverage.
        ranked: list[int] = rows[np.argsort(-score, kind="stable")][::-1].tolist()
        return ranked

    def _settle(self, row: int) -> None:
        """Close the account if nothing is open: the fund covers debt, and may keep the rest."""
        exchange = self._exchange
        accounts = exchange.accounts
        if accounts.lots[:, row].any():
            return
        cash = int(accounts.cash[row])
        if cash < 0 or exchange.venues[int(accounts.venue[row])].keeps_remainder:
            self._to_fund(row, cash)
        accounts.close(row)

    def _to_fund(self, row: int, amount: int) -> None:
        if amount == 0:
            return
        exchange = self._exchange
        venue = int(exchange.accounts.venue[row])
        fund = exchange.accounts.role(venue, Kind.FUND)
        exchange.pay(row, fund, amount)
        exchange.note_fund(row, fund, amount)

    def _note(self, kind: str, close: _Close, other: int, lots: int) -> None:
        exchange = self._exchange
        contract, number = exchange.contracts[close.c], exchange.accounts.number
        exchange.transfers.append(
            Transfer(
                at=exchange.at,
                venue=contract.venue,
                asset=contract.asset,
                kind="takeover" if kind == "takeover" else "adl",
                account=int(number[close.row]),
                counterparty=int(number[other]),
                side="long" if lots > 0 else "short",
                lots=abs(lots),
                tick=close.bankruptcy,
                amount=0,
            )
        )

    # ---------------------------------------------------------------------------- the fund

    def unwind_funds(self, step_s: float) -> None:
        """Funds sell what they took over, a fixed share per second, within the price band."""
        exchange = self._exchange
        accounts = exchange.accounts
        for c, contract in enumerate(exchange.contracts):
            row = accounts.role(contract.venue_index, Kind.FUND)
            held = int(accounts.lots[contract.asset_index, row])
            if held == 0:
                continue
            share = min(1.0, step_s / self._unwind_s)
            size = min(abs(held), round(abs(held) * share) + 1)
            sign = 1 if held > 0 else -1
            mark = int(exchange.marks[c])
            limit = round(mark * (1 - sign * self._band))
            exchange.forced_order(row, c, -sign * size, limit=limit)
