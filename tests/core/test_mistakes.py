"""Every known mistake about the map fails a criterion that ours passes.

Each mistake is made here in a few lines, so that the criterion is seen to tell them apart. Rows
whose mistake is shown elsewhere are only referred to:

=================================================  =============================================
mistake                                            shown in
=================================================  =============================================
maintenance divided by leverage                    test_margin: test_maintenance_is_not_divided_...
maintenance with the wrong sign for shorts         here
maintenance from the bracket of greatest leverage  here
maintenance from the bracket of all open interest  test_margin: test_the_tier_of_a_typical_...
open interest to one side, or split by a ratio     here
weights that do not sum to 1                       here
no removal when open interest falls                here
burnt fuel kept                                    here
consumption that adds mass                         here
bucket width that depends on the bucketed price    here
seed split taken for the standing split            here
throttled prints taken for all of them             here
Bybit's Buy read as the side of the order          venues/test_bybit: the_letter_of_...; and here
extremes of price taken for liquidations           here (what consumes), backtest (how it is graded)
tolerance of 2 %, no baseline                      here
missing data taken for zero                        here, core/test_asset
=================================================  =============================================

Of the catalogue's other rows none is about the map: what is called a probability, contagion out of
time stamps and events by z-score alone belong to the risk, and are tested with it.
"""

from math import log

import msgspec
import numpy as np
import pytest

from monitor.backtest.heatmap import top_decile, wasserstein
from monitor.core.heatmap.calibration import DEFAULT_PRIOR, ThrottleCorrection
from monitor.core.heatmap.grid import STEP, Cohorts, bin_of, price_of
from monitor.core.heatmap.map import Map, Parameters
from monitor.core.heatmap.margin import MarginTable, distances, equity, liquidation_prices
from monitor.core.heatmap.pooling import pooled, published
from monitor.events import NS, Instrument, Tier

START = 1_767_225_600 * NS
PLAIN = Parameters(turnover_per_h=0.0)
STEEP = (
    Tier(0.0, 50_000.0, 0.004, 0.0, 125.0),
    Tier(50_000.0, 1e7, 0.02, 800.0, 25.0),
    Tier(1e7, None, 0.1, 800_800.0, 5.0),
)


FLAT = (Tier(0.0, None, 0.005, 0.0, 125.0),)


def instrument(venue="binance", tiers=FLAT):
    return Instrument(
        name=f"{venue}:BTC", venue=venue, symbol="BTC", asset="BTC", kind="linear", contract=1.0,
        tick=0.1, lot=0.001, tiers=tiers,
    )  # fmt: skip


def at(seconds):
    return START + round(seconds * NS)


def started(*, price=100_000.0, interest=1_000.0, spec=None, parameters=PLAIN, correction=None):
    m = Map(spec or instrument(), parameters=parameters, correction=correction)
    m.mark(START, price)
    assert m.open_interest(START, interest)
    return m


def fuel(m):
    """USD that would be closed, by side."""
    e = m.estimate(m._mark_at)
    return e.usd.sum(axis=1)


# ---------------------------------------------------------------------------------- formulas


def short_by(formula):
    """What a formula for a short's liquidation price leaves of its equity over maintenance."""
    table = MarginTable(instrument(tiers=(Tier(0.0, None, 0.01, 0.0, 125.0),)))
    entry, quantity = np.array([100_000.0]), np.array([1.0])
    margin = entry / 20.0
    price = formula(table, entry, quantity, margin)
    left = equity(table, "short", entry=entry, quantity=quantity, margin=margin, price=price)
    return float((left - table.maintenance(quantity, price))[0])


def test_maintenance_has_the_right_sign_for_shorts():
    def ours(table, entry, quantity, margin):
        return liquidation_prices(table, "short", entry=entry, quantity=quantity, margin=margin)

    def mistaken(_table, entry, _quantity, _margin):
        return entry * (1 + 1 / 20 + 0.01)

    assert abs(short_by(ours)) < 1e-6
    # It would be closed a percent after its margin is used up: the account owes money.
    assert short_by(mistaken) < -1_000.0


def test_maintenance_is_that_of_the_positions_bracket_not_of_the_one_with_greatest_leverage():
    spec = instrument(tiers=STEEP)
    table, price, usd = MarginTable(spec), 100_000.0, 200_000.0
    leverage = np.array([20.0])
    away = distances(table, "long", leverage, price=price, position_usd=usd)
    first = MarginTable(instrument(tiers=(msgspec.structs.replace(STEEP[0], cap=None),)))
    mistaken = distances(first, "long", leverage, price=price, position_usd=usd)
    quantity, entry = np.array([usd / price]), np.array([price])
    margin = quantity * price / leverage

    def spare(distance):
        p = price * np.exp(-distance)
        own = equity(table, "long", entry=entry, quantity=quantity, margin=margin, price=p)
        return float((own - table.maintenance(quantity, p))[0]) / usd

    assert abs(spare(away)) < 1e-9
    assert spare(mistaken) < -0.01
    node = DEFAULT_PRIOR.leverage.index(20.0)
    assert started(spec=spec).cohorts[0].shift[node] == round(
        distances(table, "long", leverage, price=price, position_usd=PLAIN.typical_usd)[0] / STEP
    )


# ------------------------------------------------------------------------------------- entry


def one_sided(change, taker):
    return (change, 0.0) if taker == "buy" else (0.0, change)


def split_by_ratio(change, _taker):
    return change * 0.7, change * 0.3


@pytest.mark.parametrize("mistaken", [one_sided, split_by_ratio])
def test_a_new_contract_has_a_long_and_a_short_whatever_the_taker_or_the_ratio(mistaken):
    def is_open_interest(longs, shorts, change):
        return longs == pytest.approx(change) == pytest.approx(shorts)

    m = started()
    before = [ledger.opened for ledger in m.ledgers()]
    m.traded(at(1), 100_000.0, 500.0, "buy")
    m.open_interest(at(61), 1_100.0)
    added = [ledger.opened - b for ledger, b in zip(m.ledgers(), before, strict=True)]
    assert is_open_interest(*added, 100.0)
    assert not is_open_interest(*mistaken(100.0, "buy"), 100.0)


def test_shares_of_leverage_sum_to_one_so_that_nothing_is_made_or_lost():
    def opened_of(weights):
        cohorts = Cohorts(np.array([100, 50, 20]), first_share=1.0, relief=0, at=20_000)
        cohorts.insert(np.array([20_000]), np.array([100.0]), weights, lowest=20_001)
        return cohorts.standing() / cohorts.opened

    m = started()
    assert [float(mix.sum()) for mix in m._mix] == pytest.approx([1.0, 1.0])
    # The weights of one public map: 0.35 + 0.30 + 0.20 + 0.10 is not 1. Ours scales what it gets.
    mistaken = np.array([0.35, 0.30, 0.10])
    assert (100.0 * mistaken).sum() != pytest.approx(100.0)
    assert opened_of(mistaken) == pytest.approx(1.0)


# -------------------------------------------------------------------------------------- exit


class Accumulating:
    """What most public maps do: add every rise of open interest, and never take anything away."""

    def __init__(self, usd):
        self.usd = usd
        self._last = usd

    def open_interest(self, usd):
        self.usd += max(usd - self._last, 0.0)
        self._last = usd


def test_what_is_closed_voluntarily_leaves_no_ghosts():
    m, mistaken = started(), Accumulating(1e8)
    for i, base in enumerate([1_200.0, 900.0, 1_100.0, 800.0] * 3):
        m.open_interest(at(61 * (i + 1)), base)
        mistaken.open_interest(base * 1e5)
    assert [ledger.standing for ledger in m.ledgers()] == pytest.approx([800.0, 800.0])
    assert fuel(m).max() <= 800.0 * 1e5 * 1.05
    assert mistaken.usd > 2.0 * 800.0 * 1e5


def test_burnt_fuel_is_gone_even_where_the_price_has_come_back():
    def near(m):
        usd = m.estimate(m._mark_at)
        here = bin_of(100_000.0)
        places = usd.first + 5 * np.arange(usd.usd.shape[1])
        return float(usd.usd[0][(places < here) & (places >= here - 80)].sum())

    m, kept = started(), started()
    before = near(m)
    for second, price in ((1, 96_000.0), (2, 100_000.0)):
        m.mark(at(second), price)
    # The mistake looks at where the price is, not at where it has been since the entry.
    kept.mark(at(2), 100_000.0)
    assert before > 0
    assert near(m) < 0.02 * before
    assert near(kept) == pytest.approx(before)
    assert m.ledgers()[0].consumed > 0.0


# ------------------------------------------------------------------------------- consumption


def added(before, after):
    return np.maximum(after - before, 0.0).sum()


def test_consumption_clears_what_is_there_and_never_adds():
    m = started()
    cohorts = m.cohorts[0]
    before = cohorts.cells.copy()
    m.mark(at(1), 97_000.0)
    assert added(before, cohorts.cells) == 0.0
    assert (cohorts.cells < before).any()
    # The mistake books the print with a negative sign into whatever cell its price falls into.
    total = before.sum(axis=0)
    mistaken = total.copy()
    mistaken[total.argmax()] -= 2.0 * total.max()
    assert mistaken.min() < 0
    # Another clamps the cell at zero, then scales the rest up to the old sum.
    clamped = np.maximum(mistaken, 0.0)
    assert added(total, clamped * total.sum() / clamped.sum()) > 0.0


def test_the_grid_is_fixed_and_does_not_depend_on_the_price_that_is_bucketed():
    def width_by_price(price):
        """0.1 % of the price itself, as one public engine has it."""
        width = price * 0.001
        return round(price / width) * width

    prices = 100_000.0 * np.exp(np.linspace(0.0, 0.02, 41))
    ours = [bin_of(p) for p in prices]
    assert ours == sorted(ours)
    assert len(set(ours)) == 41
    assert all(bin_of(price_of(k) * (1 + 1e-9)) == k for k in ours)
    # The mistake has as many "buckets" as prices: two orders at almost one price never meet.
    close = (100_000.0, 100_001.0)
    assert len({bin_of(p) for p in close}) == 1
    assert len({width_by_price(p) for p in close}) == 2


def test_the_standing_split_is_the_declared_one_though_the_short_lived_die_sooner():
    life_h = np.array([1.0, 4.0, 24.0])  # high leverage does not live long
    declared = np.array([0.4, 0.35, 0.25])

    def standing(seed):
        stood = np.zeros(3)
        for _ in range(5_000):
            stood = stood * np.exp(-0.1 / life_h) + seed
        return stood / stood.sum()

    mistaken = standing(declared)
    corrected = standing((declared / life_h) / (declared / life_h).sum())
    assert np.abs(mistaken - declared).max() > 0.2
    assert corrected == pytest.approx(declared, abs=0.02)
    # Ours has no life of its own per leverage: what leaves is a share of each, and entries are
    # split as declared over what is alive; hours of turnover do not tilt it.
    m = started(parameters=Parameters(turnover_per_h=0.5))
    first = m.cohorts[0].by_row()[:-1] / m.cohorts[0].standing()
    for minute in range(1, 300):
        m.traded(at(60 * minute), 100_000.0, 1.0, "sell")
        m.open_interest(at(60 * minute), 1_000.0)
    last = m.cohorts[0].by_row()[:-1] / m.cohorts[0].standing()
    assert np.abs(last - first).max() < 0.02


# ------------------------------------------------------------------------------------ prints


def test_one_print_a_second_is_a_lower_bound_and_not_the_tape():
    correction = ThrottleCorrection()
    complete = started(spec=instrument("bybit"), correction=correction)
    throttled = started(correction=correction)
    for second in range(1, 3_001):
        for _ in range(3):
            complete.liquidation(at(second), "long", 10_000.0, "all")
    for second in range(3_001, 3_031):  # three a second here too, of which the last is shown
        throttled.liquidation(at(second), "long", 10_000.0, "sampled_1s")
    throttled.advance(at(3_200))
    true, mistaken = 30 * 3 * 10_000.0, 30 * 10_000.0
    assert abs(log(throttled.observed_usd[0] / true)) < log(1.2)
    assert abs(log(mistaken / true)) > log(2.5)


def test_a_bybit_buy_is_a_liquidated_long():
    """That the codec says so is in venues/test_bybit; here, what the mistake does to the map."""

    def hit_ratio(side):
        """Printed over expected forced closes of longs, whom the fall has liquidated."""
        m = started(spec=instrument("bybit"))
        m.mark(at(1), 97_000.0)
        m.liquidation(at(2), side, 2e7, "all")
        m.advance(at(61))
        return m.observed_usd[0] / m.expected_usd[0], m.weights.mean(0).max()

    believed, weight = hit_ratio({"Buy": "long", "Sell": "short"}["Buy"])
    mistaken, lowered = hit_ratio({"Buy": "short", "Sell": "long"}["Buy"])
    assert believed > 0.5
    assert mistaken == 0.0
    assert weight > lowered


def test_only_the_mark_liquidates_and_no_wick_of_the_last_price():
    def mistaken(m, second, price):
        """Take every extreme of the last price for a liquidation there."""
        m.mark(at(second), price)

    m, other = started(), started()
    before = [ledger.standing for ledger in m.ledgers()]
    m.traded(at(1), 90_000.0, 500.0, "sell")
    mistaken(other, 1, 90_000.0)
    m.mark(at(2), 99_990.0)
    m.advance(at(10))
    assert [ledger.standing for ledger in m.ledgers()] == pytest.approx(before, rel=1e-3)
    assert other.ledgers()[0].standing < 0.8 * before[0]


def test_a_hit_within_two_percent_grades_nothing_and_a_share_against_chance_does():
    """A tolerance as wide as the moves calls any map right; ours is compared with chance."""
    chance = np.random.Generator(np.random.PCG64(3))
    truth = np.where(np.arange(32) % 8 == 5, 10.0, 0.1)
    edges = np.arange(33) * 0.0025
    knowing = truth * 1.1
    ignorant = [chance.uniform(0.9, 1.1, 32) for _ in range(100)]

    def hits(model):
        """The mistake: a liquidation counts as foreseen when a large bucket is within 2 %."""
        named = edges[:-1][np.argsort(-model)[:5]]
        where = edges[:-1][truth > 1.0]
        return np.mean([np.abs(named - w).min() <= 0.02 for w in where])

    assert hits(knowing) == 1.0
    assert np.mean([hits(model) for model in ignorant]) > 0.9
    assert top_decile([truth], [knowing]) > 0.5
    assert np.mean([top_decile([truth], [model]) for model in ignorant]) < 0.15
    assert wasserstein(truth, knowing, edges) < 1e-9
    assert min(wasserstein(truth, model, edges) for model in ignorant) > 0.05


# ----------------------------------------------------------------------------------- unknown


def test_what_is_not_known_is_absent_and_never_zero():
    silent = Map(instrument("okx"))
    silent.mark(START, 100_000.0)
    heard = started()
    assert silent.estimate(START) is None
    heatmap = published(pooled("BTC", [heard.estimate(START)], missing=["okx:BTC"]))
    whole = published(pooled("BTC", [heard.estimate(START)]))
    assert heatmap.missing == ["okx:BTC"]
    assert heatmap.confidence < whole.confidence
    # The mistake fills in a zero: a map of one venue that looks as sure as one of both.
    estimate = heard.estimate(START)
    zero = msgspec.structs.replace(estimate, name="okx:BTC", rows=np.zeros_like(estimate.rows))
    mistaken = published(pooled("BTC", [estimate, zero]))
    assert mistaken.missing == []
    assert mistaken.confidence == pytest.approx(whole.confidence)
