"""The report on recorded history: it reads what it says, never looks ahead, and refuses."""

import argparse
import gzip
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import cli
from monitor.backtest.history import report as history
from monitor.backtest.history.files import (
    HistoryError,
    Hours,
    Past,
    Stretch,
    hours,
    pasts,
    stretches,
)
from monitor.backtest.history.grading import (
    BASELINE,
    CLIMATOLOGY,
    LEAST_ONSETS,
    MODELS,
    Rows,
    block_precisions,
    graded,
    walked,
)
from monitor.backtest.history.inputs import COLUMNS, WARM, Samples, samples
from monitor.backtest.history.labels import RULES, ahead, onsets, rule_of, usual
from monitor.backtest.history.liquidations import against
from monitor.backtest.history.map import MAPS, Fuel, heard
from monitor.backtest.history.tables import tables
from monitor.backtest.metrics import average_precisions
from monitor.events import NS

FILES = Path(__file__).parents[1] / "data" / "history"
STEP = 300 * NS
DAY = 288
T0 = 1_700_000_000 // 86_400 * 86_400 * NS


def a_stretch(n=WARM + DAY, seed=0, *, asset="BTC"):
    """A walk of the price, and open interest that wiggles."""
    chance = np.random.default_rng(seed)
    price = 100.0 * np.exp(np.cumsum(0.001 * chance.standard_normal(n)))
    interest = 1e6 * np.exp(np.cumsum(0.0005 * chance.standard_normal(n)))
    funding = np.repeat(1e-4 * chance.standard_normal(n // 96 + 1), 96)[:n]
    return Stretch(asset, T0 + STEP * np.arange(n), interest, price, funding)


@pytest.fixture(scope="module")
def quiet():
    return a_stretch()


@pytest.fixture(scope="module")
def known(quiet):
    return samples(quiet)


# ------------------------------------------------------------------------------------ files


def test_prices_and_usd_zipped_and_plain_files_are_read_and_times_rounded():
    first, second = pasts(FILES)
    assert (first.asset, second.asset) == ("AAA", "BBB")
    assert (first.at % STEP == 0).all()
    assert len(first.at) == 23
    assert first.price[0] == 50.1
    assert second.price[3] == pytest.approx(3.03)


def test_rates_of_four_hours_count_as_those_of_eight():
    _, second = pasts(FILES)
    assert second.funding.tolist() == pytest.approx([0.0002, 0.0004])


def test_a_missing_sample_is_unknown_and_a_long_gap_begins_anew():
    first, second = pasts(FILES)
    (whole,) = stretches(first)
    assert np.flatnonzero(np.isnan(whole.price)).tolist() == [7]
    assert np.isnan(whole.funding).all()
    before, after = stretches(second)
    assert (len(before.at), len(after.at)) == (10, 15)
    assert before.funding.tolist() == pytest.approx([0.0002] * 10)


def test_liquidations_are_read_by_side():
    told = hours(FILES / "AAA_liquidations.csv")
    assert told.usd[1].tolist() == [1000.0, 1000.0]
    assert (np.diff(told.at) == 3_600 * NS).all()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("t,oi\n300000,1\n", "no column 'price'"),
        ("t,oi,price\n", "nothing else"),
        ("", "no column 't'"),
        ("t,oi,price\n300000,1,2\n600000,x,2\n", "line 3"),
        ("t,oi,price\n300000,1,2\n600000,1\n", "line 3"),
        ("t,oi,price\n300000,1,2\n600000,nan,2\n", "line 3"),
        ("t,oi,price\n300000,1,2\n300000,1,2\n", "line 3: not later"),
        ("t,oi,price\n300000,1,2\n700000,1,2\n", "line 3: not at a multiple of 300 s"),
        ("t,oi,price\n300000,0,2\n", "line 2: open interest and price are above 0"),
        ("t,oi,price\n300000,1,-2\n", "line 2: open interest and price are above 0"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, text, complaint):
    (tmp_path / "X_oi_5m.csv").write_text(text)
    with pytest.raises(HistoryError, match=complaint):
        pasts(tmp_path)


def test_a_torn_archive_is_an_error_not_a_shorter_past(tmp_path):
    whole = gzip.compress(
        b"t,oi,price\n" + b"".join(b"%d,1,2\n" % (i * 300_000) for i in range(1, 99))
    )
    (tmp_path / "X_oi_5m.csv.gz").write_bytes(whole[:-20])
    with pytest.raises(HistoryError, match="X_oi_5m"):
        pasts(tmp_path)


def test_the_command_explains_an_empty_directory(tmp_path, capsys):
    options = ["backtest", "history", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(options) == 2
    assert "no file named <ASSET>_oi_5m.csv" in capsys.readouterr().err


# ----------------------------------------------------------------------------------- labels


def a_fall(*, move=-0.02, fall=0.01, late=1, n=60, at=40):
    price, interest = np.full(n, 100.0), np.full(n, 1e6)
    price[at:] *= np.exp(move)
    interest[at + late :] *= 1.0 - fall
    return price, interest


def test_a_move_with_a_fall_of_open_interest_a_sample_later_is_an_onset():
    found = onsets(*a_fall(), rule_of("T1", "BTC"))
    assert np.argwhere(found == 1.0).tolist() == [[40, 0, 0]]
    up = onsets(*a_fall(move=0.02), rule_of("T1", "BTC"))
    assert np.argwhere(up == 1.0).tolist() == [[40, 1, 0]]


@pytest.mark.parametrize(
    "told", [{"fall": 0.005}, {"late": 2}, {"move": -0.009}, {"fall": -0.01}], ids=str
)
def test_a_move_alone_or_too_small_or_a_fall_too_late_is_none(told):
    assert not (onsets(*a_fall(**told), rule_of("T1", "BTC")) == 1.0).any()


def test_other_assets_have_to_move_twice_as_far():
    case = a_fall(move=-0.015)
    assert (onsets(*case, rule_of("T1", "BTC")) == 1.0).any()
    assert not (onsets(*case, rule_of("T1", "WIF")) == 1.0).any()


def test_an_onset_without_open_interest_is_unknown_and_a_calm_sample_is_not():
    price, interest = a_fall()
    interest[39:43] = np.nan
    found = onsets(price, interest, RULES["T1"])[:, :, 0]
    assert np.isnan(found[40]).tolist() == [True, False]
    assert found[42].tolist() == [0.0, 0.0]


def test_a_second_fall_within_half_an_hour_belongs_to_the_first():
    price, interest = a_fall()
    price[43:] *= 0.98
    interest[43:] *= 0.98
    found = onsets(price, interest, msgspec.structs.replace(RULES["T1"], sigmas=0.0))
    assert np.flatnonzero(found[:, 0, 0] == 1.0).tolist() == [40]


def test_the_usual_move_does_not_contain_the_move_it_measures():
    change = np.full(60, 0.001)
    wild = change.copy()
    wild[40] = 0.05
    before, after = usual(change, RULES["T1"]), usual(wild, RULES["T1"])
    assert after[40] == before[40]
    assert after[41] > before[41]


def test_what_lies_ahead_is_asked_until_the_onset_and_not_after_it():
    onset = np.zeros((60, 2))
    onset[30, 0] = 1.0
    y = ahead(onset, RULES["T1"])
    assert y[28:30, 0, 0].tolist() == [0.0, 1.0]
    assert y[18:30, 0, 2].tolist() == [1.0] * 12
    assert y[17, 0, 2] == 0.0
    assert np.isnan(y[30:36, 0]).all()
    assert y[36, 0].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(y[48:, 1, 2]).all()
    assert not np.isnan(y[47, 1, 2])


# ----------------------------------------------------------------------------- inputs, map


def test_no_input_and_no_map_knows_what_comes_after(quiet, known):
    cut = WARM + 100
    price, interest = quiet.price.copy(), quiet.interest.copy()
    price[cut:] *= 0.9
    interest[cut:] *= 0.8
    other = samples(msgspec.structs.replace(quiet, price=price, interest=interest))
    for name in RULES:
        assert np.array_equal(
            other.x[name][: cut - WARM], known.x[name][: cut - WARM], equal_nan=True
        )
    assert not np.array_equal(other.x["T1"], known.x["T1"], equal_nan=True)
    assert np.array_equal(other.fuel.swept[: cut - WARM], known.fuel.swept[: cut - WARM])


def test_everything_but_past_onsets_is_known_after_three_days(known):
    x = known.x["T1"][1:]
    fine = [c for c, name in enumerate(COLUMNS) if name != "recent"]
    assert np.isfinite(x[..., fine]).all()


def test_funding_counts_for_the_side_that_pays(known):
    funding = known.x["T1"][..., COLUMNS.index("funding")]
    assert (funding[:, 0] == -funding[:, 1]).all()


def test_a_stretch_of_less_than_four_days_is_not_graded():
    assert samples(a_stretch(WARM + DAY - 1)) is None


def test_a_missing_sample_gives_no_fuel_and_no_number_that_is_not_one():
    whole = a_stretch(60)
    price = whole.price.copy()
    price[50] = np.nan
    told = heard(msgspec.structs.replace(whole, price=price), np.full((60, 1), 0.01), start=40)
    assert np.isnan(told.within[50]).all()
    assert np.isfinite(told.within[51:]).all()


def test_the_way_of_the_mark_sweeps_one_side_only(quiet, known):
    change = np.diff(np.log(quiet.price))[WARM - 1 :]
    swept = known.fuel.swept
    assert (swept[change > 0.0][:, :, 0] == 0.0).all()
    assert (swept[change < 0.0][:, :, 1] == 0.0).all()
    assert (swept[np.abs(change) > 1e-3].sum(axis=2)[:, MAPS.index("static")] > 0.0).all()


def test_the_path_is_told_in_the_direction_at_risk(quiet, known):
    x = known.x["T1"][:, :, 0]
    hour, extreme = x[..., COLUMNS.index("hour")], x[..., COLUMNS.index("extreme")]
    fell = quiet.price[WARM:] < quiet.price[WARM - 12 : -12]
    assert (np.sign(hour[:, 0]) == np.where(fell, 1.0, -1.0)).all()
    assert (hour[:, 0] == -hour[:, 1]).all()
    lowest = [quiet.price[i - DAY + 1 : i + 1].min() for i in range(WARM, len(quiet.price))]
    assert ((extreme[:, 0] == 0.0) == (quiet.price[WARM:] == lowest)).all()


def test_the_blind_map_knows_nothing_of_who_came_and_ours_does(quiet):
    piece = msgspec.structs.replace(
        quiet,
        **{name: getattr(quiet, name)[:80] for name in ("at", "interest", "price", "funding")},
    )
    crowded = piece.interest.copy()
    crowded[60:] *= 1.3
    reach = np.full((80, 1), 0.02)
    shares = []
    for interest in (piece.interest, crowded):
        told = heard(msgspec.structs.replace(piece, interest=interest), reach, start=40)
        usd = (piece.price * interest)[:, None, None, None]
        shares.append((told.within / usd)[70])
    for name, same in (("blind", True), ("recipe", True), ("map", False)):
        i = MAPS.index(name)
        assert np.allclose(shares[0][i], shares[1][i], rtol=1e-9) == same


def test_fuel_that_the_mark_has_passed_is_gone():
    n = 40
    price = np.full(n, 100.0)
    price[30:35] = 97.0
    stretch = Stretch("BTC", T0 + STEP * np.arange(n), np.full(n, 1e6), price, np.zeros(n))
    told = heard(stretch, np.full((n, 1), 0.025), start=20)
    for name in ("map", "recipe"):
        longs = told.within[:, MAPS.index(name), 0, 0]
        assert longs[36] < 0.7 * longs[29]
    static = told.within[:, MAPS.index("static"), 0, 0]
    assert static[36] == static[29]


# ---------------------------------------------------------------------------------- grading


def a_table(*, days=40, every=15, seed=3, skill=2.0):
    """One direction; `fuel map` and `near map` say more before an onset, the rest is noise."""
    chance = np.random.default_rng(seed)
    n = days * DAY
    onset = np.zeros((n, 2))
    onset[np.flatnonzero(chance.random(n) < 1.0 / (every * 12)), 0] = 1.0
    y = ahead(onset, RULES["T1"])[:, 0]
    x = chance.standard_normal((n, 3, len(COLUMNS)))
    x[..., COLUMNS.index("fuel map")] += skill * np.nan_to_num(y)
    at = T0 + STEP * np.arange(n)
    return Rows(at, x, y, onset[:, 0] == 1.0, np.zeros(n, dtype=np.int64))


@pytest.fixture(scope="module")
def walk():
    table = a_table()
    return table, walked(table)


def test_what_is_said_before_a_fit_does_not_depend_on_what_comes_after(walk):
    table, before = walk
    week = before.weeks[2]
    later = table.at > week
    x, y = table.x.copy(), table.y.copy()
    x[later] = -x[later]
    y[later] = 1.0 - y[later]
    # What was open when the week began is not over, and may not have taught either.
    y[(table.at <= week) & (table.at + 2 * STEP > week)] = 1.0
    after = walked(msgspec.structs.replace(table, x=x, y=y))
    said = table.at < week
    for name in (*MODELS, CLIMATOLOGY):
        assert np.array_equal(after.p[name][said], before.p[name][said], equal_nan=True)
    at_week = table.at == week
    assert after.p[CLIMATOLOGY][at_week].tolist() == before.p[CLIMATOLOGY][at_week].tolist()


def test_the_first_two_weeks_teach_and_are_not_graded(walk):
    table, found = walk
    first = table.at < table.at[0] + 14 * 86_400 * NS
    assert np.isnan(found.p["map"][first]).all()
    assert np.isfinite(found.p["map"][~first, 1:]).all()


def test_an_input_that_foresees_is_graded_above_the_baseline_and_the_base_rate_as_nothing(walk):
    found = graded(*walk, draws=40)["900"]
    less = found["less_no_map"]["map"]["pr_auc"]
    assert less["low"] > 0.0
    assert found["models"][CLIMATOLOGY]["brier_skill"]["value"] == 0.0
    assert found["molchan"]["map"] > found["molchan"][BASELINE] + 0.3
    assert found["alarms"]["map"]["10"]["false_per_day"] <= 10.0


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), min_size=1, max_size=40
    ),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_drawing_blocks_is_drawing_their_rows(told_rows, weight):
    block, level, happened = (np.array(column) for column in zip(*told_rows, strict=True))
    y, p = happened.astype(float), level / 5.0
    drawn = np.array([weight], dtype=float)
    rows_drawn = average_precisions(y, p, drawn[:, block])
    assert block_precisions(y, p, block, drawn) == pytest.approx(rows_drawn, nan_ok=True)


def test_too_few_onsets_are_refused_with_a_reason_and_not_graded():
    table = a_table(every=2_000, skill=0.0)
    assert 0 < table.onset.sum() < LEAST_ONSETS
    found = walked(table)
    assert all(np.isnan(p).all() for p in found.p.values())
    figures = graded(table, found, draws=5)["3600"]
    assert "onsets before, 10 are the least" in next(iter(figures["refused"].values()))
    assert "nothing to grade by" in figures["ungraded"]
    assert "models" not in figures


# -------------------------------------------------------------------- liquidations, report


def told(swept, price):
    """Samples from `T0` on; their warm-up lies before it."""
    whole = np.concatenate((np.full(WARM, 100.0), price))
    at = T0 + STEP * np.arange(-WARM, len(price))
    stretch = Stretch("BTC", at, np.full(len(at), 1e6), whole, np.zeros(len(at)))
    none = {name: np.empty((len(price), 0)) for name in RULES}
    return Samples(stretch, none, none, none, Fuel(np.empty((len(price), 0)), swept))


def test_liquidations_like_the_map_have_its_rank_and_its_scale():
    chance = np.random.default_rng(5)
    n = 12 * 100 + 1
    price = 100.0 * np.exp(np.cumsum(0.001 * chance.standard_normal(n)))
    swept = chance.exponential(1e6, (n, len(MAPS), 2))
    # The sample at a full hour ends the hour before it.
    true = swept[1:, 0].reshape(100, 12, 2).sum(axis=1) / 4.0
    printed = Hours(T0 + 3_600 * NS * np.arange(100), true)
    found = against([told(swept, price)], printed, draws=20)
    assert found["hours"] == 100
    longs = found["sides"]["long"]
    assert longs["spearman"]["map"]["value"] == pytest.approx(1.0)
    assert longs["map_less"]["static"]["low"] > 0.5
    assert longs["scale"]["map"] == pytest.approx(0.25)
    assert longs["later"]["map"] == pytest.approx(1.0)


def test_two_days_of_liquidations_are_the_least():
    price = np.full(37, 100.0)
    printed = Hours(T0 + 3_600 * NS * np.arange(3), np.ones((3, 2)))
    found = against([told(np.ones((37, len(MAPS), 2)), price)], printed, draws=2)
    assert found["refused"] == "3 hours in common, 48 are the least"


def test_the_side_that_broke_is_asked_for_its_fuel_a_sample_before(known):
    onset = np.zeros((DAY, 2, 3))
    onset[[24, 60], [0, 1], 0] = 1.0
    x = known.x["T1"].copy()
    near = x[..., COLUMNS.index("near map")]
    near[[23, 59], 0], near[[23, 59], 1] = 2.0, 1.0
    told_of = msgspec.structs.replace(
        known, onsets=dict.fromkeys(RULES, onset), x=dict.fromkeys(RULES, x)
    )
    sides = history.report([told_of], {}, draws=2)["labels"]["T1"]["sides"]["near map"]
    assert (sides["onsets"], sides["days"], sides["share"]["value"]) == (2, 1, 0.5)


def test_an_onset_is_confirmed_by_an_hour_of_unusual_liquidations_of_its_side(known):
    onset = np.zeros((DAY, 2, 3))
    onset[[24, 60], 0, 0] = 1.0
    told_of = msgspec.structs.replace(known, onsets=dict.fromkeys(RULES, onset))
    first = int(known.at[0]) // (3_600 * NS) * 3_600 * NS
    printed = Hours(first + 3_600 * NS * np.arange(-200, 24), np.ones((224, 2)))
    # Sample 24 ends the second hour. Shorts do not speak for a fall.
    printed.usd[201] = 9.0, 1.0
    printed.usd[204] = 1.0, 9.0
    found = history.report([told_of], {"BTC": printed}, draws=2)
    assert found["liquidations"]["BTC"]["onsets"]["T1"] == {
        "onsets": 2,
        "known": 2,
        "confirmed": 1,
        "median_quantile": 0.5,
    }
    assert "beyond the label's quantile of the month before in 1." in tables(found)


def test_the_report_of_a_quiet_week_is_repeatable_and_says_that_it_cannot_fit(known):
    def made():
        return history.report([known], {}, draws=3)

    first = made()
    assert msgspec.json.encode(first) == msgspec.json.encode(made())
    text = tables(first)
    assert "Not graded" in text
    assert "| BTC |" in text
    assert "nan" not in text


def test_liquidations_of_an_asset_that_was_not_recorded_are_an_error(tmp_path, monkeypatch, known):
    monkeypatch.setattr(history, "heard_from", lambda _: [known])
    options = argparse.Namespace(
        data=FILES, liquidations=[("XYZ", FILES / "AAA_liquidations.csv")], out=tmp_path
    )
    with pytest.raises(HistoryError, match="liquidations of XYZ"):
        history.COMMAND.run(options)


def test_the_recorded_winter_has_the_onsets_that_are_reported(shared):
    folder = shared / "hl_reaper" / "history"
    if not folder.is_dir():
        pytest.skip("no recorded open interest in the shared data")
    counts = {name: [0, 0] for name in RULES}
    found: list[Past] = pasts(folder)
    for past in found:
        for stretch in stretches(past):
            for name in RULES:
                rule = rule_of(name, past.asset)
                onset = onsets(stretch.price, stretch.interest, rule)[:, :, 0]
                for d in (0, 1):
                    counts[name][d] += int(np.nansum(onset[:, d]))
    assert len(found) == 7
    assert counts == {"T1": [27, 15], "half": [221, 187]}
