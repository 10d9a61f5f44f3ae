"""The label needs all three: a move, deleveraging and liquidations; unknown is not "no"."""

from itertools import pairwise
from math import inf

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.forecast.label import (
    MINUTE_NS,
    Labeller,
    LabellerState,
    LabelRule,
    Minute,
    labels,
    outcome,
)
from monitor.core.saved import StateError
from monitor.events import NS

START = 1_767_225_600 * NS
RULE = LabelRule(least_sums=100)
QUIET = 180
"""Minutes of ordinary trading before the story begins."""


def minute(n, price=100.0, *, low=None, high=None, interest=1_000.0, long=0.0, short=0.0):
    return Minute(
        at=START + (n + 1) * MINUTE_NS, low=low or price, high=high or price, close=price,
        interest=interest, liquidated_long=long, liquidated_short=short,
    )  # fmt: skip


def quiet(n=QUIET, **kwargs):
    """Prices that waver by 1 bp, with a small liquidation now and then."""
    return [
        minute(i, 100.0 + 0.01 * (i % 2), long=100.0 * (i % 50 == 0), short=100.0 * (i % 50 == 0),
               **kwargs)
        for i in range(n)
    ]  # fmt: skip


def crash(price=97.0, interest=980.0, liquidated=1e6, n=QUIET):
    """A fall of 3 %, after which all is quiet at the new price."""
    return [
        minute(n, price, high=100.0, interest=interest, long=liquidated),
        *(minute(n + i, price, interest=interest) for i in range(1, 60)),
    ]


def onsets(minutes, rule=RULE):
    """(minute, direction, tiers) of every onset, and the minutes whose verdict is unknown.

    Before five minutes have passed there is no verdict in any story.
    """
    verdicts = labels(minutes, rule)
    found = [((v.at - START) // MINUTE_NS - 1, v.direction, v.onsets) for v in verdicts if v.onsets]
    unknown = [(v.at - START) // MINUTE_NS - 1 for v in verdicts if v.onsets is None]
    return found, [n for n in unknown if n >= 5]


def test_a_move_with_deleveraging_and_liquidations_is_an_onset():
    assert onsets([*quiet(), *crash()]) == ([(QUIET, "down", (1, 2))], [])


@pytest.mark.parametrize(
    ("interest", "tiers"), [(992.6, None), (992.4, (1,)), (985.0, (1, 2)), (969.0, (1, 2, 3))]
)
def test_open_interest_tells_the_tier(interest, tiers):
    found, _ = onsets([*quiet(), *crash(interest=interest)])
    assert found == ([(QUIET, "down", tiers)] if tiers else [])


@pytest.mark.parametrize(
    "story",
    [
        crash(price=99.2),  # too small in any market
        crash(interest=1_000.0),  # a fall without deleveraging
        crash(liquidated=0.0),  # nobody was forced
        [minute(QUIET, 97.0, high=100.0, interest=980.0, short=1e6), *crash()[1:]],  # other side
    ],
)
def test_any_one_condition_that_fails_makes_it_nothing(story):
    assert onsets([*quiet(), *story]) == ([], [])


def test_a_slow_fall_is_none_and_a_fast_one_within_five_minutes_is():
    def falling(step):
        # Each minute is where the last one ended, and lower by a step.
        return [
            minute(QUIET + i, 100.0 - step * (i + 1), interest=950.0, long=1e5) for i in range(20)
        ]

    assert onsets([*quiet(), *falling(0.15)])[0] == []
    assert onsets([*quiet(), *falling(0.4)])[0][0][0] == QUIET + 2


def test_a_squeeze_is_the_mirror_image():
    story = [
        Minute(m.at, 1e4 / m.high, 1e4 / m.low, 1e4 / m.close, m.interest,
               m.liquidated_short, m.liquidated_long)
        for m in [*quiet(), *crash()]
    ]  # fmt: skip
    assert onsets(story) == ([(QUIET, "up", (1, 2))], [])


def test_a_wild_market_asks_for_more_than_the_least_move():
    wild = [minute(i, 100.0 + 0.6 * (i % 2), long=100.0 * (i % 50 == 0)) for i in range(QUIET)]
    assert onsets([*wild, *crash()])[0] == []
    assert onsets([*wild, *crash(price=88.0)])[0] == [(QUIET, "down", (1, 2))]


def test_open_interest_may_come_with_the_next_reading():
    late = crash(interest=None)
    late[3] = msgspec.structs.replace(late[3], interest=960.0)
    late[4] = msgspec.structs.replace(late[4], interest=960.0)
    assert onsets([*quiet(), *late])[0] == [(QUIET, "down", (1, 2, 3))]


def test_half_an_hour_passes_before_the_next_onset_of_a_tier():
    again = [*quiet(), *crash()]
    base = len(again)
    second = [minute(base + i, 97.0, interest=980.0) for i in range(30)]
    for gap, expected in ((20, 1), (31, 2)):
        story = [*quiet(), *crash()[:gap]]
        n = len(story)
        story += [minute(n, 94.0, high=97.0, interest=960.0, long=2e6)]
        story += [minute(n + i, 94.0, interest=960.0) for i in range(1, 10)]
        assert len(onsets(story)[0]) == expected, gap
    assert onsets([*again, *second])[0] == [(QUIET, "down", (1, 2))]
    deeper = crash()
    deeper[2] = msgspec.structs.replace(deeper[2], interest=960.0, liquidated_long=2e6)
    deeper[3] = msgspec.structs.replace(deeper[3], interest=960.0)
    assert onsets([*quiet(), *deeper])[0][:2] == [
        (QUIET, "down", (1, 2)),
        (QUIET + 1, "down", (3,)),
    ]


def test_within_half_an_hour_of_one_of_every_tier_there_is_none_whatever_is_not_heard():
    story = [*quiet(), *crash(interest=960.0)[:10]]
    n = len(story)
    story += [minute(n, 94.0, high=97.0, interest=None, long=2e6)]
    story += [minute(n + i, 94.0, interest=None) for i in range(1, 40)]
    found, unknown = onsets(story)
    assert found == [(QUIET, "down", (1, 2, 3))]
    assert n not in unknown


@pytest.mark.parametrize(
    "missing",
    [{"interest": None}, {"liquidated_long": None}, {"low": None}, {"close": float("nan")}],
)
def test_what_is_not_known_makes_the_verdict_unknown(missing):
    story = [*quiet(), *crash()]
    for i in range(QUIET, len(story)):
        story[i] = msgspec.structs.replace(story[i], **missing)
    found, unknown = onsets(story)
    assert found == []
    assert QUIET in unknown


def test_a_missing_reading_makes_a_quiet_minute_no_less_quiet():
    assert onsets(quiet(interest=None)) == ([], [])


def test_a_short_past_makes_a_large_move_unknown_and_a_small_one_nothing():
    found, unknown = onsets([*quiet(20), *crash(n=20)])
    assert (found, 20 in unknown) == ([], True)
    assert not [n for n in unknown if n < 20]


@pytest.mark.parametrize(
    ("start", "price", "changes", "why"),
    [
        (QUIET - 2, 99.5, {}, "price_unheard"),
        (0, 97.0, {"low": None}, "price_unheard"),
        (QUIET - 50, 97.0, {}, "volatility_new"),
        (QUIET - 20, 97.0, {}, "liquidations_new"),
        (0, 97.0, {"liquidated_long": None}, "liquidations_unheard"),
        (0, 97.0, {"interest": None}, "open_interest_unheard"),
    ],
)
def test_an_unknown_minute_says_why_and_whether_it_may_be_an_onset(start, price, changes, why):
    rule = msgspec.structs.replace(RULE, least_sums=30, beyond=inf)
    changed = [msgspec.structs.replace(m, **changes) for m in crash(price)]
    verdicts = labels([*quiet(), *changed][start:], rule)
    (found,) = [v for v in verdicts if (v.at, v.direction) == (changed[0].at, "down")]
    assert (found.onsets, found.unknown) == (None, why)
    assert found.possible == (why != "price_unheard")
    assert all((v.unknown is None) == (v.onsets is not None) for v in verdicts)


def test_a_volatility_that_was_not_heard_serves_with_a_margin_until_one_is():
    for lent, expected in ((0.001, True), (0.0025, None), (0.02, False)):
        story = [*quiet(10), *crash(n=10)]
        story = [msgspec.structs.replace(m, usual=lent) for m in story]
        found, unknown = onsets(story, msgspec.structs.replace(RULE, least_sums=5))
        assert (bool(found), 10 in unknown) == (expected is True, expected is None), lent
    wrong = [msgspec.structs.replace(m, usual=0.02) for m in [*quiet(), *crash()]]
    assert onsets(wrong) == onsets([*quiet(), *crash()])


def test_a_share_of_the_open_interest_that_cannot_be_usual_needs_no_history():
    new = msgspec.structs.replace(RULE, least_sums=1_000)
    for usd, found in ((0.06 * 1e5, True), (0.04 * 1e5, False)):
        assert bool(onsets([*quiet(), *crash(liquidated=usd)], new)[0]) == found


def test_liquidations_that_were_exceeded_too_often_to_be_unusual_are_known_early():
    rule = msgspec.structs.replace(RULE, least_sums=1_000, history_min=20_000)
    often = [msgspec.structs.replace(m, liquidated_long=50.0) for m in quiet()]
    # Of the longest history 100 sums may be larger: more than that have been already.
    assert onsets([*often, *crash(liquidated=10.0)], rule) == ([], [])
    assert QUIET in onsets([*often[:50], *quiet()[50:], *crash(liquidated=10.0)], rule)[1]
    # As large is not larger.
    assert QUIET in onsets([*often, *crash(liquidated=50.0)], rule)[1]


def test_minutes_left_out_are_unknown_as_is_any_horizon_over_them():
    story = [m for i, m in enumerate(quiet(300)) if not 200 <= i < 203]
    verdicts = labels(story, RULE)
    over = {"horizon_s": 900, "direction": "down", "tier": 2}
    assert outcome(verdicts, since=START + 100 * MINUTE_NS, **over) is False
    assert outcome(verdicts, since=START + 195 * MINUTE_NS, **over) is None
    assert outcome(verdicts, since=START + 290 * MINUTE_NS, **over) is None  # not over yet


def test_an_outcome_counts_onsets_after_the_forecast_and_up_to_its_horizon():
    verdicts = labels([*quiet(), *crash()], RULE)
    onset = START + (QUIET + 1) * MINUTE_NS

    def found(since, horizon, tier=2, direction="down"):
        return outcome(verdicts, since=since, horizon_s=horizon, direction=direction, tier=tier)

    assert found(onset - 300 * NS, 300) is True
    assert found(onset - 301 * NS, 300) is False
    assert found(onset, 300) is False
    assert found(onset - 60 * NS, 900, tier=3) is False
    assert found(onset - 60 * NS, 900, direction="up") is False


def test_the_verdict_comes_with_the_next_reading_and_uses_nothing_later():
    story = [*quiet(), *crash()]
    labeller = Labeller(RULE)
    for i, each in enumerate(story):
        for verdict in labeller.heard(each):
            assert each.at - verdict.at <= MINUTE_NS, i
    changed = [*story[: QUIET + 2], *(minute(QUIET + i, 50.0, long=1e9) for i in range(2, 9))]
    assert onsets(changed)[0][0] == onsets(story)[0][0]


def test_a_minute_out_of_order_is_an_error_of_the_caller():
    labeller = Labeller(RULE)
    labeller.heard(minute(5))
    with pytest.raises(ValueError, match="after"):
        labeller.heard(minute(5))
    with pytest.raises(ValueError, match="within another"):
        labeller.heard(msgspec.structs.replace(minute(6), at=START + 7))


def test_a_restart_in_the_middle_changes_no_verdict():
    story = [*quiet(), *crash()]
    whole = labels(story, RULE)
    labeller = Labeller(RULE)
    found = [v for m in story[: QUIET + 1] for v in labeller.heard(m)]
    data = msgspec.msgpack.encode(labeller.state())
    other = Labeller(RULE)
    other.restore(msgspec.msgpack.decode(data, type=LabellerState))
    found += [v for m in story[QUIET + 1 :] for v in other.heard(m)]
    assert sorted(found, key=lambda v: (v.at, v.direction)) == whole
    with pytest.raises(StateError, match="histogram"):
        other.restore(msgspec.structs.replace(labeller.state(), counts=[[0.0], [0.0]]))


NUMBER = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(st.integers(1, 8), *[NUMBER] * 6), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_minutes_get_at_most_one_verdict_each(heard):
    labeller, at, verdicts = Labeller(LabelRule(least_min=2, least_sums=2)), START, []
    for apart, *numbers in heard:
        at += apart * MINUTE_NS
        verdicts += labeller.heard(Minute(at, *numbers))
    keys = sorted((v.direction, v.at) for v in verdicts)
    assert all(a != b for a, b in pairwise(keys))
