"""Forecasts are graded on what happened, and what nobody saw counts for nothing."""

from math import log
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from monitor.core.forecast.alarms import AlarmRecord
from monitor.core.forecast.evidence import ENOUGH_DAYS, Days
from monitor.core.forecast.label import Labeller, LabelRule, Minute
from monitor.core.forecast.scorecard import (
    ABSTAIN_COVERAGE,
    EDGES,
    INTERVAL_S,
    MAX_PENDING,
    Scorecard,
)
from monitor.core.forecast.unseen import WAIT_S, WHY, Decided
from monitor.core.saved import StateError
from monitor.events import NS, Ungraded

START = 1_767_225_600 * NS
DAY = 86_400


def at(seconds):
    return START + round(seconds * NS)


def card(horizon_s=300):
    return Scorecard("BTC", "down", horizon_s)


def graded(c, forecasts, *, onsets=(), unseen=(), step=60, end=None):
    """Register (p_map, p_baseline) every `step` seconds, then have everything decided."""
    for i, (p_map, p_baseline) in enumerate(forecasts):
        assert c.mature(at(step * i), 0) == []
        assert c.register(at(step * i), p_map, p_baseline, 0.01)
    for onset in onsets:
        c.onset(at(onset))
    for since, until in unseen:
        c.unseen(at(since), at(until), "price_unheard")
    now = at(step * len(forecasts)) if end is None else at(end)
    return c.mature(now, at(step * len(forecasts) + 4_000))


# -------------------------------------------------------------------------------- verdicts


def test_every_reason_for_no_grade_has_its_words():
    assert set(WHY) == set(get_args(Ungraded))
    assert all(WHY.values())


def test_an_onset_within_the_horizon_and_not_before_makes_a_forecast_true():
    c = card()
    found = graded(c, [(0.1, 0.1)] * 12, onsets=[420])
    # (t, t + 300]: the forecasts of 120 s to 360 s; that of 420 s saw it happen.
    assert [i for i, v in enumerate(found) if v.outcome] == [2, 3, 4, 5, 6]
    assert c.skill().onsets == 1


def test_a_window_nobody_saw_is_unresolved_unless_an_onset_is_known():
    c = card()
    found = graded(c, [(0.1, 0.1)] * 12, onsets=[900], unseen=[(400, 500), (880, 900)])
    outcomes = [v.outcome for v in found]
    assert outcomes == [False] * 2 + [None] * 7 + [False] + [True] * 2
    assert c.skill().unresolved == 7
    assert c.skill().matured == 5


def test_nothing_is_graded_for_half_an_hour_after_an_onset():
    c = card()
    found = graded(c, [(0.9, 0.1)] * 40, onsets=[420])
    outcomes = [v.outcome for v in found]
    # Seven before; from 420 s on the forecast says what is under way, for thirty minutes.
    assert outcomes == [False] * 2 + [True] * 5 + [None] * 30 + [False] * 3
    assert c.skill().matured == 10
    assert c.skill().unresolved == c.skill().ungraded["under_way"] == 30
    assert (found[7].brier, found[7].ungraded, found[7].why) == (
        None, "under_way", WHY["under_way"],
    )  # fmt: skip
    assert (found[0].ungraded, found[0].why) == (None, "")


def test_no_verdict_is_given_before_the_label_has_decided():
    c = card()
    c.register(at(0), 0.1, 0.1, 0.01)
    assert c.mature(at(90), at(0)) == []
    assert c.mature(at(100), at(299)) == []
    assert [v.outcome for v in c.mature(at(110), at(300))] == [False]


def test_a_forecast_the_label_never_decides_becomes_unresolved():
    c = card()
    c.register(at(0), 0.1, 0.1, 0.01)
    now = 0
    while now < 300 + WAIT_S - 60:
        now += 60
        assert c.mature(at(now), at(0)) == []
    assert [v.ungraded for v in c.mature(at(now + 60), at(0))] == ["undecided"]


def test_what_the_label_has_decided_ends_before_the_first_minute_that_waits():
    decided = Decided()
    for minute in (1, 2, 3, 4):
        decided.heard(at(60 * minute))
    for minute, through in ((1, 1), (3, 1), (4, 1), (2, 4)):
        decided.judged(at(60 * minute))
        assert decided.through == at(60 * through)
    decided.heard(at(300))
    again = Decided()
    again.restore(decided.state())
    again.judged(at(300))
    assert again.through == at(300)
    with pytest.raises(StateError):
        again.restore([])


def test_a_minute_that_is_never_judged_does_not_hold_the_rest_for_ever():
    decided = Decided()
    for minute in range(1, WAIT_S // 60 + 3):
        decided.heard(at(60 * minute))
        if minute > 1:
            decided.judged(at(60 * minute))
    assert decided.through == at(60 * minute)


def test_the_time_the_monitor_was_away_is_unseen():
    c = card()
    c.mature(at(0), at(0))
    c.register(at(0), 0.1, 0.1, 0.01)
    assert [v.ungraded for v in c.mature(at(4_000), at(4_000))] == ["away"]


def test_one_forecast_is_registered_in_an_interval_and_none_without_a_probability():
    c = card()
    first = c.register(at(0), 0.1, 0.2, 0.01)
    assert (first.probability, first.using, first.due) == (0.1, "map", at(300))
    assert c.register(at(INTERVAL_S - 1), 0.1, 0.2, 0.01) is None
    assert c.register(at(INTERVAL_S), None, None, 0.01) is None
    second = c.register(at(INTERVAL_S), None, 0.2, 0.01)
    assert (second.probability, second.using) == (0.2, "baseline")


def test_pending_forecasts_are_bounded():
    c = card(3_600)
    made = [c.register(at(60 * i), 0.1, 0.1, 0.01) for i in range(MAX_PENDING + 10)]
    assert [f is None for f in made[-11:]] == [False] + [True] * 10
    assert c.skill().pending == MAX_PENDING


def test_what_may_have_been_a_cascade_forbids_a_grade_for_half_an_hour():
    c = card()
    for i in range(40):
        c.register(at(60 * i), 0.9, 0.1, 0.01)
    c.unseen(at(60), at(120), "price_unheard")
    c.unseen(at(300), at(360), "liquidations_new", possible=True)
    found = c.mature(at(2_400), at(4_000))
    # Both lie in the window of the second forecast; from 360 s on one may be under way.
    expected = ["price_unheard"] + ["liquidations_new"] * 5 + ["perhaps_under_way"] * 30
    assert [v.ungraded for v in found] == [*expected, *[None] * 4]
    counts = {why: n for why, n in c.skill().ungraded.items() if n}
    assert counts == {"price_unheard": 1, "liquidations_new": 5, "perhaps_under_way": 30}


@pytest.mark.parametrize("p", [float("nan"), 1.5, -0.1])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match="p_map"):
        card().register(at(0), p, 0.1, 0.01)


MINUTE = st.tuples(st.floats(-0.02, 0.01), st.sampled_from([0.0, 0.002, 0.01, 0.04]),
                   st.floats(-0.03, 0.01))  # fmt: skip
USUAL = 1e-6
"""Variance of a minute's return before the storm."""


def told(story, *, first=0):
    """Outcomes of a card that hears a story from its minute `first` on, or always has."""
    labeller, c, decided, found = Labeller(), card(), Decided(), []
    if first == 0:
        rule, new = LabelRule(), labeller.state()
        counts = [float(rule.history_min), *[0.0] * (len(new.counts[0]) - 1)]
        heard = [rule.history_min] * 2
        labeller.restore(
            structs.replace(new, variance=USUAL, returns=rule.memory_min, sigmas=[USUAL**0.5] * 5,
                            counts=[counts] * 2, heard=heard)
        )  # fmt: skip
    for minute in story[first:]:
        decided.heard(minute.at)
        for v in labeller.heard(minute):
            if v.direction == "down" and v.onsets is None:
                c.unseen(v.at - 60 * NS, v.at, v.unknown, possible=v.possible)
            elif v.direction == "down" and v.onsets:
                c.onset(v.at)
            if v.direction == "down":
                decided.judged(v.at)
        found += c.mature(minute.at, decided.through)
        c.register(minute.at, 0.5, 0.5, 0.01)
    return {v.forecast_at: v.outcome for v in found}


@settings(deadline=None, max_examples=60)
@given(
    heard=st.integers(0, 20),
    wrong=st.floats(0.55, 1.9),
    storm=st.lists(MINUTE, min_size=1, max_size=12),
)
def test_what_a_new_monitor_grades_an_old_one_grades_the_same(heard, wrong, storm):
    price, interest, variance, story = 100.0, 1e6, USUAL, []
    quiet = [(0.001 * (-1) ** n, 0.00001 * (n % 7 == 0), 0.0) for n in range(30)]
    calm = [(0.0, 0.0, 0.0)] * 50
    for n, (move, share, change) in enumerate([*quiet, *storm, *calm]):
        low, high = min(price, price * (1 + move)), max(price, price * (1 + move))
        price, interest = price * (1 + move), interest * (1 + change)
        variance += (log(1 + move) ** 2 - variance) / LabelRule().memory_min
        usd, usual = share * interest * price, wrong * variance**0.5
        story.append(Minute(at(60 * (n + 1)), low, high, price, interest, usd, 0.0, usual))
    old, new = told(story), told(story, first=len(quiet) - heard)
    assert len(new) > 40
    assert {t: o for t, o in new.items() if o is not None and o is not old[t]} == {}


# --------------------------------------------------------------------------------- figures


def test_an_empty_scorecard_knows_nothing_and_says_so():
    skill = card().skill()
    assert skill.unproven
    assert not skill.abstaining
    assert {skill.brier, skill.brier_skill, skill.log_score, skill.map_log_skill} == {None}
    assert {(b.forecast, b.observed) for b in skill.reliability} == {(None, None)}


def test_figures_agree_with_the_formulas_on_a_hand_made_case():
    c = card(60)
    # Three false and one true, none faded noticeably within minutes.
    graded(c, [(0.2, 0.5), (0.2, 0.5), (0.2, 0.5), (0.8, 0.5)], onsets=[230], step=60)
    skill = c.skill()
    brier, base, climate = (4 * 0.04) / 4, 0.25, (0.99**2 + 3 * 0.01**2) / 4
    assert skill.brier == pytest.approx(brier, rel=1e-4)
    assert skill.brier_skill_baseline == pytest.approx(1 - brier / base, rel=1e-4)
    assert skill.brier_skill == pytest.approx(1 - brier / climate, rel=1e-3)
    assert skill.log_score == pytest.approx(-log(0.8), rel=1e-4)
    assert skill.map_log_skill == pytest.approx(1 - log(0.8) / log(0.5), rel=1e-4)


def test_reliability_puts_what_was_said_beside_what_happened():
    c = card()
    graded(c, [(0.15, 0.1)] * 10, onsets=[560])
    (full,) = [b for b in c.skill().reliability if b.count]
    assert (full.low, full.high) == (0.1, 0.3)
    assert full.count == pytest.approx(10, rel=1e-3)
    assert full.forecast == pytest.approx(0.15)
    assert full.observed == pytest.approx(0.5, rel=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    said=st.lists(st.tuples(*[st.none() | st.floats(0, 1)] * 2), min_size=1, max_size=40),
    onsets=st.lists(st.integers(0, 3_000), max_size=5),
)
def test_no_figure_is_ever_out_of_bounds(said, onsets):
    c = card()
    for i, (p_map, p_baseline) in enumerate(said):
        c.register(at(60 * i), p_map, p_baseline, 0.01)
    for onset in onsets:
        c.onset(at(onset))
    c.mature(at(3_000), at(3_000))
    skill = c.skill()
    for value in (skill.brier_skill, skill.log_skill, skill.map_log_skill):
        assert value is None or value <= 1
    assert skill.brier is None or 0 <= skill.brier <= 1
    assert sum(b.count for b in skill.reliability) == pytest.approx(skill.matured, rel=1e-3)
    assert len(EDGES) == len(skill.reliability) + 1


# ------------------------------------------------------------- who is published, abstention


def days_of(c, days, p_map, p_baseline, *, first=0, onset_share=0.0, climate=0.01):
    """Some forecasts on each of many days; an onset on a share of the days."""
    for day in range(first, first + days):
        begin = day * DAY
        for i in range(10):
            now = begin + 600 * i
            c.register(at(now), p_map, p_baseline, climate)
            if i == 4 and int(day * onset_share) != int((day + 1) * onset_share):
                c.onset(at(now + 60))
            for minute in range(10):
                c.mature(at(now + 60 * minute), at(now + 60 * minute))
    c.mature(at((first + days) * DAY), at((first + days) * DAY))


def test_the_baseline_takes_over_from_a_map_that_cries_wolf_and_gives_back():
    c = card()
    days_of(c, int(ENOUGH_DAYS) - 2, 0.3, 0.02)
    assert c.using == "map"
    days_of(c, 5, 0.3, 0.02, first=int(ENOUGH_DAYS) - 2)
    assert c.using == "baseline"
    assert c.skill().map_log_skill < 0
    assert c.register(at(40 * DAY), 0.3, 0.02, 0.01).probability == 0.02
    days_of(c, 150, 0.001, 0.02, first=41)
    assert c.using == "map"


def test_a_forecast_worse_than_climatology_is_abstained_from():
    c = card()
    days_of(c, 20, 0.3, 0.25)
    assert c.using == "baseline"
    assert c.abstaining.startswith("worse than climatology over")
    assert c.register(at(30 * DAY), 0.3, 0.25, 0.01).abstaining == c.abstaining


def test_a_good_forecast_is_stood_by_and_proven_after_enough_onsets():
    c = card()
    days_of(c, 30, 0.03, 0.01, onset_share=0.3)
    skill = c.skill()
    assert not skill.abstaining
    assert skill.onsets == 9
    assert not skill.unproven


def test_an_honest_forecast_is_not_dropped_for_a_quiet_month():
    c = card()
    days_of(c, 30, 0.02, 0.015)
    assert c.skill().log_skill < 0
    assert c.using == "map"
    assert not c.abstaining


def test_little_evidence_is_unproven_and_no_abstention():
    c = card()
    days_of(c, 5, 0.3, 0.02)
    assert c.skill().unproven
    assert c.abstaining == ""


def test_poor_coverage_abstains_until_it_is_clearly_back():
    c = card()
    assert c.assess(ABSTAIN_COVERAGE + 0.01, 0.9) == ""
    assert c.assess(ABSTAIN_COVERAGE - 0.1, 0.9) == "coverage 40 % below 50 %"
    assert c.assess(ABSTAIN_COVERAGE + 0.01, 0.9) != ""
    assert c.assess(ABSTAIN_COVERAGE + 0.06, 0.9) == ""
    assert c.assess(0.9, None) == "confidence unknown"


def test_noise_between_two_equal_forecasters_rarely_counts_as_worse():
    # A fixed, irregular sequence of mean zero: quadratic residues of a prime.
    residues = {i * i % 10_007 for i in range(1, 10_007)}
    signs = [1.0 if i in residues else -1.0 for i in range(1, 10_007)]
    days, worse = Days(), 0
    for day, sign in enumerate(signs[:5_000]):
        days.add(day, sign)
        worse += days.is_worse()
    assert worse < 0.1 * 5_000


# ---------------------------------------------------------------------------------- alarms


def record(alarms, onsets, *, hours=24):
    """Alarms as (begin, end) and onsets, in minutes; onsets are found five minutes late."""
    r = AlarmRecord("BTC", "down")
    for minute in range(hours * 60 + 1):
        r.step(at(60 * minute), is_alarm=any(a <= minute < b for a, b in alarms))
        for onset in onsets:
            if onset + 5 == minute:
                r.onset(at(60 * onset))
        r.mature(at(60 * (minute - 5)))
    return r


def test_precision_recall_lead_and_false_alarms_of_a_hand_made_day():
    score = record([(100, 130), (300, 320), (335, 340), (600, 700)], [110, 500, 650]).score()
    assert score.precision == pytest.approx(0.5, abs=0.01)
    assert score.recall == pytest.approx(2 / 3, abs=0.01)
    # The two false ones lie within the refractory time of one another.
    assert (score.alarms_total, score.false_alarms_total) == (4, 2)
    assert score.false_alarms_per_day == pytest.approx(2.0, rel=0.02)
    assert score.lead_median_s == 600
    assert score.leads == [1, 0, 0, 1, 1]
    assert score.alarm_share == pytest.approx(155 / 1_440, rel=0.02)


def test_false_alarms_soon_after_one_another_are_one():
    assert record([(300, 305), (315, 320)], []).score().false_alarms_total == 1
    assert record([(300, 305), (340, 345)], []).score().false_alarms_total == 2


def test_an_alarm_that_only_confirms_an_onset_has_no_lead_and_is_not_false():
    score = record([(101, 130)], [100]).score()
    assert (score.recall, score.precision) == (0.0, 1.0)
    assert score.leads[0] == 1


def test_an_alarm_that_ended_shortly_before_the_onset_keeps_its_lead():
    score = record([(60, 90)], [100]).score()
    assert (score.recall, score.precision, score.lead_median_s) == (1.0, 1.0, 2_400)


def test_no_more_than_an_hour_of_lead_is_claimed():
    assert record([(60, 600)], [500]).score().lead_median_s == 3_600


def test_time_nobody_watched_is_not_counted_as_free_of_false_alarms():
    r = AlarmRecord("BTC", "down")
    r.step(at(0), is_alarm=False)
    r.step(at(60), is_alarm=False)
    r.step(at(10 * DAY), is_alarm=False)
    assert r.score().observed_days < 0.001


def test_an_alarm_is_neither_right_nor_wrong_where_nobody_can_say():
    r = AlarmRecord("BTC", "down")
    for minute in range(200):
        r.step(at(60 * minute), is_alarm=20 <= minute < 30 or 100 <= minute < 110)
        if minute == 25:
            r.unseen(at(60 * 24), at(60 * 25), "liquidations_new", possible=True)
        r.mature(at(60 * (minute - 5)))
    score = r.score()
    assert (score.undecided_total, score.alarms_total, score.false_alarms_total) == (1, 1, 1)


def test_no_lead_is_claimed_where_the_cascade_may_have_begun_before():
    scores = []
    for possible in (False, True):
        r = AlarmRecord("BTC", "down")
        for minute in range(120):
            r.step(at(60 * minute), is_alarm=12 <= minute < 40)
            if minute == 30:
                r.unseen(at(60 * 10), at(60 * 15), "liquidations_new", possible=possible)
                r.onset(at(60 * 18))
        scores.append(r.score())
    assert [score.lead_median_s for score in scores] == [360, 0]
    assert [score.recall for score in scores] == [1, 0]


def test_a_cascade_that_is_only_called_when_it_runs_had_no_alarm():
    def recall(early):
        r = AlarmRecord("BTC", "down")
        for minute in range(180):
            runs = 60 <= minute < 80
            r.step(at(60 * minute), is_alarm=None if runs else early and 50 <= minute < 60)
            if minute == 62:
                r.onset(at(60 * 60))
        return r.score().recall, r.score().lead_median_s, r.score().false_alarms_total

    assert recall(early=False) == (0.0, 0.0, 0)
    assert recall(early=True) == (1.0, 600.0, 0)


def test_an_empty_record_has_no_figures():
    score = AlarmRecord("BTC", "down").score()
    found = {score.precision, score.recall, score.lead_median_s, score.false_alarms_per_day}
    assert found == {None}


# ----------------------------------------------------------------------------------- state


def revived(state):
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=type(state))


def test_a_restored_scorecard_goes_on_with_the_same_figures():
    first, second = card(), card()
    days_of(first, 16, 0.3, 0.02, onset_share=0.2)
    second.restore(revived(first.state()))
    assert second.skill() == first.skill()
    for c in (first, second):
        days_of(c, 3, 0.3, 0.02, first=16)
    assert second.state() == first.state()


def test_a_restored_alarm_record_goes_on_with_the_same_figures():
    first = record([(100, 130), (300, 320)], [110])
    second = AlarmRecord("BTC", "down")
    second.restore(revived(first.state()))
    assert second.score() == first.score()


def test_states_of_others_or_damaged_ones_are_refused():
    with pytest.raises(StateError, match="900"):
        card(300).restore(card(900).state())
    broken = structs.replace(card().state(), recent_onsets=float("nan"))
    with pytest.raises(StateError, match="finite"):
        card().restore(broken)
    with pytest.raises(StateError, match="up"):
        AlarmRecord("BTC", "down").restore(AlarmRecord("BTC", "up").state())
