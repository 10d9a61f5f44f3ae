"""Phases go up at once and down slowly, end on evidence, and never mistake silence for calm."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from monitor.core.alerts.budget import Budget
from monitor.core.alerts.phases import Phases
from monitor.core.alerts.quality import Fault, Latch, Quality
from monitor.core.alerts.reasons import Evidence
from monitor.core.alerts.rules import BY_RULE, RISK, AlertRules
from monitor.core.saved import StateError
from monitor.events import NS

START = 1_767_225_600 * NS
"""Midnight UTC."""
RULES = AlertRules()
QUIET = {
    "score": 0.05, "probabilities": {900: 0.001}, "normal_move": 0.005, "mark": 100.0,
    "liquidated_usd": (0.0, 5e3, 2e4), "normal_liquidated_usd": 5e3, "depth_ratio": 1.0,
    "depth_recovered": 1.0, "moves": (0.0, 0.0), "moves_sigma": (0.0, 0.0),
}  # fmt: skip
CRASH = QUIET | {
    "score": 0.9, "mark": 97.0, "liquidated_usd": (2e6, 9e6, 3e7), "depth_ratio": 0.3,
    "depth_recovered": 0.3, "moves": (0.012, 0.03), "moves_sigma": (9.0, 8.0),
}  # fmt: skip
HEAVY_ONLY = QUIET | {"liquidated_usd": (2e6, 9e6, 3e7)}
MOVE_ONLY = QUIET | {"moves": (0.012, 0.03), "moves_sigma": (9.0, 8.0)}


class Track:
    """One direction fed every five seconds."""

    def __init__(self, direction="down", rules=RULES, budget=None, start=START):
        self.rules, self.direction, self.at = rules, direction, start
        self.budget = budget or Budget(rules)
        self.phases = Phases("BTC", direction, rules=rules, budget=self.budget)
        self.alerts = []

    def feed(self, seconds=5, step=5, **fields):
        made = []
        for _ in range(int(seconds) // step):
            self.at += step * NS
            evidence = Evidence(
                at=self.at, asset="BTC", direction=self.direction, **(QUIET | fields)
            )
            made += self.phases.step(evidence)
        self.alerts += made
        return made

    @property
    def phase(self):
        return self.phases.standing().phase

    def turns(self):
        return [(a.action, a.phase) for a in self.alerts if a.kind == "risk"]


def crash(track, sign=1):
    """The golden scenario: fragile, cascade, absorption, calm."""
    track.feed(300)
    track.feed(60, score=0.45)
    track.feed(60, score=0.65)
    for i in range(24):
        track.feed(**(CRASH | {"mark": 100 - sign * (1 + i / 10)}))
    low = 100 - sign * 3.3
    track.feed(600, mark=low + sign, liquidated_usd=(0.0, 2e5, 1e6), score=0.7)
    track.feed(1_800, mark=low + sign)


# ------------------------------------------------------------------------------------ scenarios


def test_a_crash_is_warned_of_seen_exhausted_and_cleared():
    track = Track()
    crash(track)
    assert track.turns() == [
        ("raised", "watch"), ("changed", "warning"), ("changed", "cascading"),
        ("changed", "exhausted"), ("cleared", "calm"),
    ]  # fmt: skip
    assert len({a.id for a in track.alerts}) == 1
    assert [a.severity for a in track.alerts] == ["info", "warning", "critical", "warning", "info"]
    assert track.alerts[3].reasons[0].text.startswith("liquidations at 2.2 % of their peak, no new")
    assert "BTC down: cascading (was warning): " in track.alerts[2].text
    assert track.alerts[4].text == (
        "BTC down: calm (was exhausted): no new cascade for 15 min; unknown: fuel"
    )


def test_a_squeeze_is_the_mirror_of_a_crash():
    down, up = Track("down"), Track("up")
    crash(down)
    crash(up, sign=-1)
    assert up.turns() == down.turns()
    assert [a.at for a in up.alerts] == [a.at for a in down.alerts]
    assert "no new high" in up.alerts[3].text
    assert "shorts" in up.alerts[2].text


def test_a_calm_day_makes_no_alert():
    track = Track()
    track.feed(86_400, step=30, score=0.2)
    assert track.alerts == []
    assert track.phases.standing().shown == "calm"


def test_a_venue_outage_in_a_warning_never_steps_down_and_is_told():
    track = Track()
    track.feed(60, score=0.65)
    track.feed(7_200, score=0.1, missing=("okx",))
    assert track.phase == "warning"
    assert track.phases.standing().held == "okx missing since it was raised"
    assert track.phases.standing().shown == "unknown"
    doubt = track.alerts[-1]
    assert (doubt.kind, doubt.code, doubt.severity) == ("quality", "phase_unknown", "critical")
    track.feed(595, score=0.1)
    assert track.phase == "warning"
    track.feed(1_300, score=0.1)
    assert track.turns()[-2:] == [("changed", "watch"), ("cleared", "calm")]
    assert [a.action for a in track.alerts if a.kind == "quality"] == ["raised", "cleared"]


def test_a_venue_missing_all_along_does_not_hold_the_phase():
    track = Track()
    track.feed(60, score=0.65, missing=("okx",))
    track.feed(1_300, score=0.1, missing=("okx",))
    assert track.phase == "calm"


# ------------------------------------------------------------------------------- risk phases


def test_escalation_is_immediate_and_every_step_down_takes_the_hold():
    track = Track()
    assert [a.phase for a in track.feed(score=0.85)] == ["critical"]
    times = [START]
    while track.phase != "calm":
        times += [a.at for a in track.feed(score=0.0)]
        assert track.at < START + 7_200 * NS
    assert track.turns()[1:] == [("changed", "warning"), ("changed", "watch"), ("cleared", "calm")]
    assert all(b - a >= RULES.hold_s * NS for a, b in pairwise(times))


def test_a_phase_stays_between_its_two_thresholds():
    track = Track()
    track.feed(score=0.61)
    track.feed(7_200, score=0.52)
    assert track.phase == "warning"
    track.feed(700, score=0.48)
    assert track.phase == "watch"


def test_a_phase_above_its_evidence_says_why_it_stands():
    track = Track()
    held = lambda: track.phases.standing().held  # noqa: E731
    track.feed(score=0.61)
    assert held() == ""
    track.feed(300, score=0.52)
    assert held() == "hysteresis: left below a score of 0.50"
    track.feed(305, score=0.48)
    assert held() == "hold: low enough for 5 min of 10 min"
    track.feed(300, score=0.35, stale="no synced book")
    assert held() == "no synced book", "what is missing weighs more than what has passed"
    track.feed(700, score=0.35)
    assert track.phase == "watch"
    assert held() == (
        "hysteresis: left below a score of 0.30, with the critical shock beyond 1.9 normal moves"
        " or a loop gain below 4.8"
    )
    track.feed(score=0.45)
    assert held() == ""
    track.feed(700, score=0.0)
    assert (track.phase, held()) == ("calm", "")


def test_a_cascade_says_what_its_end_still_lacks():
    track = Track()
    held = lambda: track.phases.standing().held  # noqa: E731
    track.feed(60, **CRASH)
    assert held() == ""
    for seconds, why, fields in (
        (5, "liquidations at 44 % of their peak", {"liquidated_usd": (0.0, 4e6, 3e7)}),
        (5, "a new low 65 s ago", {}),
        (150, "the bid at 30 % of before", {"depth_recovered": 0.3}),
        (15, "absorbed for 10 s of 2 min", {}),
        (5, "liquidations are not heard", {"liquidated_usd": None}),
        (5, "the bid of before is not known", {"depth_recovered": None}),
        (5, "no mark price is heard", {"mark": None}),
    ):
        track.feed(seconds, **({"mark": 98.0} | fields))
        assert held() == f"cascade: {why}"
        assert held().startswith(BY_RULE)
    track.feed(600, mark=98.0)
    assert (track.phase, held()) == ("exhausted", "exhausted: stands for 15 min after the cascade")
    assert all(a.held == "" for a in track.alerts), "an alert tells of missing inputs only"


def test_a_critical_shock_within_a_normal_move_raises_a_watch_or_without_forecast_a_warning():
    track = Track()
    track.feed(critical_shock=0.004, loop_gain=6.0)
    assert track.phase == "watch"
    track.feed(critical_shock=0.004, loop_gain=6.0, score=None, probabilities=None)
    assert track.phase == "warning"


def test_a_near_critical_shock_with_little_gain_is_within_the_error_of_map_and_depth():
    track = Track()
    track.feed(critical_shock=0.001, loop_gain=0.9 * RULES.shock_gain)
    assert track.phase == "calm"
    track.feed(critical_shock=0.001, loop_gain=RULES.shock_gain)
    track.feed(2 * RULES.hold_s, critical_shock=0.001, loop_gain=0.9 * RULES.shock_gain)
    assert track.phase == "watch", "what was worth a watch stays so for a little less"
    track.feed(2 * RULES.hold_s, critical_shock=0.001, loop_gain=3.0)
    assert track.phase == "calm"


def test_a_cascades_move_with_liquidations_unheard_is_a_warning():
    track = Track()
    track.feed(**(MOVE_ONLY | {"liquidated_usd": None}))
    assert track.phase == "warning"


@settings(deadline=None, max_examples=50)
@given(
    scores=st.lists(st.floats(0.3, 0.9), min_size=30, max_size=30), step=st.sampled_from((5, 20))
)
def test_noise_around_a_threshold_does_not_flap(scores, step):
    track = Track()
    for i in range(2 * 3_600 // step):
        track.feed(step, step=step, score=scores[i % len(scores)])
    # At most one step down in a hold, hence as many up, and the first three.
    assert len(track.turns()) <= 2 * (2 * 3_600 / RULES.hold_s) + 3
    downs = [a for a in track.alerts if RISK.index(a.phase) < RISK.index(a.previous)]
    assert len(downs) <= 2 * 3_600 / RULES.hold_s


# ------------------------------------------------------------------------------- cascade


@pytest.mark.parametrize("partial", [HEAVY_ONLY, MOVE_ONLY])
def test_a_cascade_takes_both_liquidations_and_a_move(partial):
    track = Track()
    track.feed(600, **partial)
    assert "cascading" not in [phase for _, phase in track.turns()]


def test_a_move_the_other_way_is_no_cascade():
    track = Track()
    track.feed(600, **(CRASH | {"score": 0.05, "moves": (-0.012, -0.03)}))
    assert track.phase == "calm"


@pytest.mark.parametrize(
    "hindrance",
    [{"abstaining": "no skill"}, {"stale": "no synced book"}, {"score": None}, {"missing": ("a",)}],
)
def test_a_realised_cascade_comes_straight_from_calm_whatever_else_is_missing(hindrance):
    track = Track()
    track.feed(60)
    assert [(a.action, a.phase) for a in track.feed(**(CRASH | hindrance))] == [
        ("raised", "cascading")
    ]


@pytest.mark.parametrize(
    "hindrance",
    [{"depth_recovered": 0.3}, {"depth_recovered": None}, {"liquidated_usd": None},
     {"liquidated_usd": (0.0, 2e6, 9e6)}, {"mark": None}, {"stale": "no synced book"},
     {"missing": ("binance",)}],
)  # fmt: skip
def test_the_end_is_not_declared_while_any_evidence_of_it_is_missing(hindrance):
    track = Track()
    track.feed(60, **CRASH)
    track.feed(3_600, **({"mark": 98.0} | hindrance))
    assert track.phase == "cascading"
    # Two and a half minutes of quiet are not enough once it can be seen.
    track.feed(110, mark=98.0)
    assert track.phase == "cascading"
    track.feed(600, mark=98.0)
    assert track.phase == "exhausted"


def test_an_unknown_price_is_no_proof_of_no_new_low():
    track = Track()
    track.feed(60, **CRASH)
    track.feed(600, mark=None)
    track.feed(RULES.absorbed_extreme_s + RULES.absorbed_s - 10, mark=98.0)
    assert track.phase == "cascading"
    track.feed(30, mark=98.0)
    assert track.phase == "exhausted"


def test_new_lows_keep_the_cascade_going():
    track = Track()
    track.feed(60, **CRASH)
    for i in range(720):
        track.feed(mark=97.0 - (i // 24) / 100)
    assert track.phase == "cascading"


def test_a_second_leg_after_exhaustion_is_the_same_cascade_again():
    track = Track()
    track.feed(60, **CRASH)
    track.feed(600, mark=98.0)
    assert track.phase == "exhausted"
    # No unusual move by the risen volatility, but heavy and further down.
    track.feed(**(CRASH | {"mark": 96.0, "moves_sigma": (1.0, 2.0)}))
    assert track.turns()[-1] == ("changed", "cascading")


def test_a_fragile_market_after_exhaustion_goes_to_its_risk_phase_not_to_calm():
    track = Track()
    track.feed(60, **CRASH)
    track.feed(2_400, mark=98.0, score=0.65)
    assert track.turns()[-2:] == [("changed", "exhausted"), ("changed", "warning")]


# ----------------------------------------------------------------- missing input, abstention


@pytest.mark.parametrize(
    "hindrance", [{"stale": "book unsynced"}, {"score": None}, {"abstaining": "coverage 40 %"}]
)
def test_missing_input_holds_a_phase_and_says_why(hindrance):
    track = Track()
    track.feed(60, score=0.65)
    track.feed(7_200, **({"score": 0.0} | hindrance))
    assert track.phase == "warning"
    held = track.phases.standing().held
    assert held
    assert not held.startswith(BY_RULE)


@pytest.mark.parametrize(
    "hindrance",
    [{"stale": "all books unsynced"}, {"score": None}, {"score": 0.95, "abstaining": "poor"}],
)
def test_calm_that_rests_on_what_cannot_be_used_is_shown_as_unknown_at_once(hindrance):
    track = Track()
    assert track.phases.standing().shown == "unknown"
    track.feed()
    assert track.phases.standing().shown == "calm"
    track.feed(**hindrance)
    assert track.phase == "calm"
    assert track.phases.standing().shown == "unknown"
    track.feed()
    assert track.phases.standing().shown == "calm"


def test_stale_input_can_still_raise_the_risk():
    track = Track()
    track.feed(score=0.9, stale="okx book unsynced")
    assert track.phase == "critical"


def test_a_silence_of_the_evidence_itself_is_no_quiet():
    track = Track()
    track.feed(60, score=0.65)
    track.feed(score=0.0)
    track.feed(1_200, step=1_200, score=0.0)
    assert track.phase == "warning"


def test_abstention_raises_nothing_and_is_shown():
    track = Track()
    track.feed(600, score=0.95, abstaining="worse than climatology over 20 days")
    assert track.alerts == []
    assert track.phases.standing().abstaining.startswith("abstaining: worse")


@settings(deadline=None, max_examples=50)
@given(
    hindrances=st.lists(
        st.sampled_from(
            ({"stale": "x"}, {"score": None}, {"abstaining": "x"}, {"missing": ("okx",)})
        ),
        min_size=1, max_size=20,
    ),
    began=st.sampled_from((0.45, 0.65, 0.85)),
)  # fmt: skip
def test_no_order_of_missing_inputs_lowers_a_phase(hindrances, began):
    track = Track()
    track.feed(30, score=began)
    before = track.phase
    for hindrance in hindrances:
        track.feed(900, step=15, **({"score": 0.0} | hindrance))
    assert track.phase == before


# ------------------------------------------------------------------------ budget, observation


def false_alarm(track, score=0.65):
    track.feed(score=score)
    while track.phase != "calm":
        track.feed(30, step=30, score=0.0)


def test_a_spent_budget_raises_the_threshold_until_midnight():
    track = Track()
    for _ in range(RULES.warning_budget):
        false_alarm(track)
    assert track.budget.charged(2, track.at) == RULES.warning_budget
    track.feed(60, score=0.65)
    assert track.phase == "watch"
    assert track.budget.withheld == 1
    track.feed(score=0.71)
    assert track.phase == "warning"
    tomorrow = Track(budget=track.budget, start=START + 86_400 * NS)
    tomorrow.feed(score=0.65)
    assert tomorrow.phase == "warning"


def test_both_directions_of_an_asset_share_one_budget():
    budget = Budget(RULES)
    down = Track(budget=budget)
    false_alarm(down, score=0.85)
    up = Track("up", budget=budget, start=down.at)
    up.feed(score=0.85)
    assert up.phase == "warning"


def test_a_spent_budget_never_silences_a_cascade():
    track = Track()
    track.budget.charge(3, START)
    for _ in range(10):
        track.budget.charge(2, START)
    track.feed(**CRASH)
    assert track.phase == "cascading"


def test_an_alarm_that_a_cascade_followed_is_not_false():
    track = Track()
    crash(track)
    assert track.budget.charged(2, track.at) == 0


def test_a_new_alarm_after_a_cascade_is_not_excused_by_it():
    track = Track()
    track.feed(60, **CRASH)
    track.feed(2_400, mark=98.0, score=0.45)
    assert track.turns()[-2:] == [("changed", "exhausted"), ("changed", "watch")]
    for _ in range(2):
        track.feed(score=0.65)
        track.feed(900, score=0.45)
    assert track.turns()[-4:] == [("changed", "warning"), ("changed", "watch")] * 2
    assert track.budget.charged(2, track.at) == 2


def test_what_was_raised_while_observing_is_told_when_it_still_stands():
    track = Track(rules=AlertRules(observe_s=120.0))
    track.feed(60, score=0.65)
    assert [a.silent for a in track.alerts] == [True]
    track.feed(120, score=0.65)
    told = track.alerts[-1]
    assert (told.action, told.phase, told.silent) == ("raised", "warning", False)
    assert len(track.alerts) == 2


# ---------------------------------------------------------------------------------- state


def test_a_restart_goes_on_where_it_was_and_clears_what_was_raised():
    whole, first = Track(), Track()
    for track in (whole, first):
        track.feed(60, score=0.65)
        track.feed(30, **CRASH)
        track.feed(100, mark=98.0)
    second = Track(start=first.at)
    saved = msgspec.msgpack.encode(first.phases.state())
    second.phases.restore(msgspec.msgpack.decode(saved, type=type(first.phases.state())))
    second.budget.restore(first.budget.state())
    whole.alerts.clear()
    for track in (whole, second):
        track.feed(3_000, mark=98.0)
    assert second.alerts == whole.alerts
    assert second.turns()[-1] == ("cleared", "calm")


@pytest.mark.parametrize(
    ("field", "value"), [("origin", 0.0), ("origin", float("nan")), ("peak_usd", float("inf"))]
)
def test_a_state_with_impossible_numbers_is_refused(field, value):
    state = structs.replace(Track().phases.state(), **{field: value})
    with pytest.raises(StateError, match="phases with a"):
        Track().phases.restore(state)


def test_a_state_of_another_direction_is_refused():
    with pytest.raises(StateError, match="up"):
        Track("down").phases.restore(Track("up").phases.state())


# --------------------------------------------------------------------------------- quality

SILENT = Fault("venue_silent", "okx", "nothing for 31 s")


def quality(pattern, *, step=5, rules=RULES):
    """Alerts of a pattern of (seconds, faults)."""
    machine, at, made = Quality("BTC", rules=rules), START, []
    for seconds, faults in pattern:
        for _ in range(seconds // step):
            at += step * NS
            made += machine.step(at, faults)
    return machine, made


def test_a_fault_is_raised_after_it_held_and_cleared_after_it_was_gone():
    machine, made = quality([(60, []), (25, [SILENT]), (60, [])])
    assert made == []
    machine, made = quality([(60, [SILENT]), (100, []), (30, [])])
    assert [(a.action, a.kind, a.subject) for a in made] == [
        ("raised", "quality", "okx"), ("cleared", "quality", "okx"),
    ]  # fmt: skip
    assert made[0].id == made[1].id
    assert made[0].text == "BTC okx: venue silent: nothing for 31 s"
    assert machine.standing() == []
    assert machine.state().latches == []


def test_a_fault_that_blinks_is_raised_once():
    _, made = quality([(40, [SILENT]), (20, [])] * 60)
    assert [a.action for a in made] == ["raised"]


def test_faults_of_two_venues_are_two_alerts():
    other = structs.replace(SILENT, subject="bybit")
    machine, made = quality([(60, [SILENT, other])])
    assert [a.subject for a in made] == ["bybit", "okx"]
    assert len(machine.standing()) == 2


def test_saved_faults_are_cleared_after_a_restart():
    first, _ = quality([(60, [SILENT])])
    second = Quality("BTC", rules=RULES)
    second.restore(first.state())
    made = [a for i in range(60) for a in second.step(START + (60 + 5 * i) * NS, [])]
    assert [a.action for a in made] == ["cleared"]


@settings(deadline=None, max_examples=50)
@given(pattern=st.lists(st.booleans(), min_size=200, max_size=200))
def test_no_pattern_of_a_fault_flaps(pattern):
    latch, turns = Latch(), 0
    for i, is_faulty in enumerate(pattern):
        at = START + 5 * i * NS
        turns += latch.step(at, is_faulty=is_faulty, rules=RULES, raise_s=30.0) is not None
    assert turns <= 2 * (1_000 / (RULES.quality_clear_s + RULES.quality_raise_s)) + 1
