"""A trader's words: figures, order, and what is unknown."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from monitor.core.alerts.reasons import (
    LACKS,
    Evidence,
    Picture,
    Unheard,
    brief,
    duration,
    money,
    percent,
    price,
    ranked,
)
from monitor.core.forecast.features import INPUTS

FRAGILE = Evidence(
    at=0, asset="BTC", direction="down", score=0.75, probabilities={900: 0.12},
    critical_shock=0.012, critical_usd=38e6, normal_move=0.009, loop_gain=1.4, amplification=3.0,
    reach=0.018, fuel_usd=212e6, depth_usd=140e6, depth_ratio=0.55, mark=64_000.0,
    liquidated_usd=(0.0, 0.0, 0.0), normal_liquidated_usd=40_000.0,
)  # fmt: skip
PICTURE = Picture(
    gain_stretch=(63_900.0, 63_100.0),
    venue_fuel=(("okx", 0.2), ("binance", 0.64), ("bybit", 0.16)),
    unheard=(Unheard("okx", "open interest", 180.0),),
)


def test_a_fragile_market_is_told_in_a_traders_words():
    texts = [reason.text for reason in ranked(FRAGILE, PICTURE)]
    fuel = "$212 M of longs liquidate within 1.8 %; of those within 5 %, 64 % on binance"
    assert fuel in texts
    assert "the bid absorbs $140 M within 1.8 %, 45 % below its 7-day normal" in texts
    assert "loop gain 1.4 between 63 900 and 63 100" in texts
    assert "12 % chance of a cascade within 15 minutes" in texts
    assert "a fall of 1.2 % by a sale of $38 M and what it closes on its way sets it off" in texts


def test_a_gain_beyond_measure_is_told_as_a_bound():
    empty = structs.replace(FRAGILE, loop_gain=100.0)
    capped = structs.replace(PICTURE, gain_capped=True)
    assert "loop gain 100 or more between 63 900 and 63 100" in [
        r.text for r in ranked(empty, capped)
    ]
    assert not any("or more" in r.text for r in ranked(FRAGILE, PICTURE))


def test_a_fall_that_needs_no_shock_is_said_to_be_what_the_map_says():
    def said(gain):
        here = structs.replace(FRAGILE, critical_shock=0.0, critical_usd=0.0, loop_gain=gain)
        told = [r for r in ranked(here, PICTURE) if r.code in ("critical_shock", "amplification")]
        return [r.text for r in told]

    start = "by the map any fall from here runs on by itself; "
    assert said(8.0) == [start + "the chance allows for the error of map and depth"]
    assert said(2.4) == [start + "its loop gain is within the error of map and depth"]


def test_what_news_sets_off_is_told_where_it_is_less_than_a_sale_would_have_to_move():
    def said(news):
        e = structs.replace(
            FRAGILE, critical_shock=0.02, critical_usd=45e6, critical_requote=news, amplification=8
        )
        return [r.text for r in ranked(e) if r.code in ("critical_shock", "amplification")]

    assert (
        "a fall of 2.0 % by a sale of $45 M and what it closes on its way, or of 0.80 %"
        " by news, sets it off" in said(0.008)
    )
    assert "a fall of 2.0 % by a sale of $45 M and what it closes on its way sets it off" in said(
        0.03
    )
    assert "a fall of 2.0 % by a sale of $45 M and what it closes on its way sets it off" in said(
        None
    )
    assert any("is past the critical one" in text for text in said(0.001))


def test_a_few_liquidations_of_which_nobody_knows_the_normal_weigh_little():
    def weight(usd):
        e = structs.replace(FRAGILE, normal_liquidated_usd=None, liquidated_usd=(0.0, usd, usd))
        (found,) = [r.weight for r in ranked(e) if r.code == "liquidations"]
        return found

    assert weight(1.1e3) < 0.001
    assert weight(2e9) > 0.9


def test_a_list_of_the_unknown_is_short_in_an_alert():
    assert brief("unknown: a, b, c") == "unknown: a, b, c"
    assert brief("unknown: a, b, c, d, e, f") == "unknown: a, b, c and 3 more"


@pytest.mark.parametrize(
    ("radius", "text"),
    [
        (0.4, "0.40 times as large, by how they moved in violent minutes"),
        (1.25, "1.2 times as large, by how they moved in violent minutes: they would not fade"),
    ],
)
def test_contagion_is_told_on_a_scale_with_what_it_rests_on(radius, text):
    found = ranked(structs.replace(FRAGILE, contagion=radius))
    assert f"falls of the assets cause further ones {text}" in [r.text for r in found]


def test_assets_that_do_nothing_to_each_other_are_no_reason():
    found = ranked(structs.replace(FRAGILE, contagion=0.01))
    assert "contagion" not in {r.code for r in found}


@pytest.mark.parametrize(
    ("critical", "factor", "text"),
    [
        (0.05, 1.3, "would go 1.3 times as far"),
        (None, 1.3, "would go 1.3 times as far"),
        (0.012, 2.7, "is past the critical one and would run 2.7 times as far"),
        (0.012, None, "is past the critical one and would run farther than can be seen"),
    ],
)
def test_an_ordinary_move_past_the_critical_one_is_said_to_be_that(critical, factor, text):
    e = structs.replace(FRAGILE, critical_shock=critical, amplification=factor)
    (said,) = [r.text for r in ranked(e) if r.code == "amplification"]
    assert said == f"a fall of 1.8 %, twice what is normal in 15 min, {text}"


def test_a_move_that_hardly_grows_is_no_reason():
    still = structs.replace(FRAGILE, critical_shock=0.05, amplification=1.01)
    assert "amplification" not in {r.code for r in ranked(still)}


@pytest.mark.parametrize(
    ("sigmas", "said"),
    [(9.04, "9.0"), (20.0, "20.0"), (20.1, "more than 20"), (113.0, "more than 20")],
)
def test_a_move_is_measured_by_the_volatility_before_it_and_not_beyond_its_meaning(sigmas, said):
    e = structs.replace(FRAGILE, moves=(0.011, 0.02), moves_sigma=(sigmas, 1.0))
    (text,) = [r.text for r in ranked(e) if r.code == "move"]
    assert text.removeprefix("a fall of 1.1 % within 60 s, ") == (
        f"{said} standard deviations by the volatility before it"
    )


@pytest.mark.parametrize(
    ("phase", "which"), [("critical", "a"), ("cascading", "another"), ("exhausted", "another")]
)
def test_during_a_cascade_the_chance_is_that_of_another(phase, which):
    texts = [r.text for r in ranked(FRAGILE, phase=phase)]
    assert f"12 % chance of {which} cascade within 15 minutes" in texts


def test_every_input_that_the_score_lacks_is_named_once_as_unknown():
    lacking = structs.replace(PICTURE, lacking=INPUTS)
    (told,) = [r.text for r in ranked(FRAGILE, lacking) if r.code == "unknown"]
    assert sorted(told.removeprefix("unknown: ").split(", ")) == sorted(set(LACKS.values()))
    unheard = structs.replace(FRAGILE, liquidated_usd=None)
    (told,) = [
        r.text
        for r in ranked(unheard, structs.replace(PICTURE, lacking=("prints", "contagion")))
        if r.code == "unknown"
    ]
    assert told == "unknown: liquidations, contagion"


def test_upwards_the_same_is_said_of_shorts_and_asks():
    up = ranked(structs.replace(FRAGILE, direction="up"), PICTURE)
    swapped = [
        (r.text.replace("shorts", "longs").replace("ask", "bid").replace("rise", "fall"))
        .replace("purchase", "sale")
        for r in up
    ]  # fmt: skip
    assert swapped == [r.text for r in ranked(FRAGILE, PICTURE)]
    assert any("shorts" in r.text for r in up)


def test_the_larger_contribution_comes_first_and_the_unknown_last():
    found = ranked(FRAGILE, PICTURE)
    assert [r.weight for r in found] == sorted((r.weight for r in found), reverse=True)
    text = "open interest of okx unheard for 3 min: its fuel is as of then"
    assert (found[-1].text, found[-1].weight) == (text, 0.0)
    tight = ranked(structs.replace(FRAGILE, loop_gain=9.0), PICTURE)
    assert tight[0].code == "loop_gain"


def test_without_any_figure_the_unknown_is_named_and_nothing_else():
    found = ranked(Evidence(at=0, asset="BTC", direction="down", missing=("okx",)))
    assert {r.code for r in found} == {"unheard", "unknown"}
    assert "unknown: fuel, depth, liquidations, the forecast" in [r.text for r in found]


def test_a_running_cascade_is_led_by_what_has_happened():
    running = structs.replace(
        FRAGILE, liquidated_usd=(4e6, 21e6, 60e6), moves=(0.011, 0.02), moves_sigma=(9.0, 7.0),
        open_interest_change=-0.031,
    )  # fmt: skip
    texts = [r.text for r in ranked(running)]
    assert texts[0] == "open interest down 3.1 % in 5 min"
    assert texts[1] == "$21 M of longs liquidated in 60 s, 525 times normal"
    assert any(text.startswith("a fall of 1.1 % within 60 s, 9.0 standard") for text in texts)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (money(212e6), "$212 M"), (money(1.44e6), "$1.4 M"), (money(999_700), "$1.0 M"),
        (money(85_300), "$85 k"), (money(0), "$0"), (money(6.93e9), "$6.9 B"),
        (price(63_900), "63 900"), (price(1_234_567.8), "1 234 568"), (price(145.321), "145.32"),
        (price(0.00001234), "0.000012340"), (price(99_999.7), "100 000"),
        (percent(0.12), "12 %"), (percent(0.0996), "10 %"), (percent(0.018), "1.8 %"),
        (percent(0.0035), "0.35 %"), (percent(1e-6), "under 0.01 %"), (percent(0), "0 %"),
        (duration(40), "40 s"), (duration(180), "3 min"), (duration(7_200), "2 h"),
    ],
)  # fmt: skip
def test_figures_have_the_digits_a_reader_needs(said, expected):
    assert said == expected


@pytest.mark.parametrize("field", ["score", "critical_usd", "mark"])
def test_a_number_that_is_none_is_refused_by_name(field):
    with pytest.raises(ValueError, match=field):
        structs.replace(FRAGILE, **{field: math.nan})


maybe = st.none() | st.floats(0, 1e12)
ratio = st.none() | st.floats(0, 1)


@settings(deadline=None, max_examples=100)
@given(
    numbers=st.fixed_dictionaries(
        dict.fromkeys(
            ("critical_shock", "critical_usd", "normal_move", "loop_gain", "amplification",
             "contagion", "reach", "fuel_usd", "depth_usd", "depth_ratio",
             "normal_liquidated_usd"), maybe,
        ) | {"score": ratio, "open_interest_change": st.none() | st.floats(-1, 1),
             "liquidated_usd": st.none() | st.tuples(*[st.floats(0, 1e12)] * 3),
             "moves": st.none() | st.tuples(*[st.floats(-1, 1)] * 2),
             "moves_sigma": st.none() | st.tuples(*[st.floats(-50, 50)] * 2)},
    ),
    probability=ratio,
)  # fmt: skip
def test_whatever_is_missing_nothing_unreadable_is_printed(numbers, probability):
    known = None if probability is None else {900: probability}
    evidence = Evidence(at=0, asset="BTC", direction="up", probabilities=known, **numbers)
    found = ranked(evidence)
    assert found == ranked(evidence)
    for reason in found:
        assert not any(word in reason.text for word in ("nan", "inf", "None", "e+"))
        assert 0 <= reason.weight <= 1
