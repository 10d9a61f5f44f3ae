import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.sinks.sequence import Sequence

CASES = {
    "the first message is no loss": ([("a", 7)], [(0, False)]),
    "one after the other": ([("a", 1), ("a", 2)], [(0, False), (0, False)]),
    "a hole is counted": ([("a", 1), ("a", 5)], [(0, False), (3, False)]),
    "what has been had is ignored": ([("a", 4), ("a", 4), ("a", 3)], [(0, False), None, None]),
    "a restart is told": ([("a", 9), ("b", 1)], [(0, False), (0, True)]),
    "what a restart's first message misses": ([("a", 9), ("b", 4)], [(0, False), (3, True)]),
    "a second restart": ([("a", 1), ("b", 1), ("c", 1)], [(0, False), (0, True), (0, True)]),
}


@pytest.mark.parametrize(("told", "expected"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("is_state", [True, False])
def test_the_readers_rule(told, expected, is_state):
    sequence = Sequence(is_state=is_state)
    verdicts = [sequence.judge(run, seq) for run, seq in told]
    assert [v and (v.lost, v.restarted) for v in verdicts] == expected


def test_a_late_state_of_the_run_before_does_not_bring_it_back():
    sequence = Sequence(is_state=True)
    told = [("a", 5), ("b", 1), ("a", 6), ("b", 2)]
    verdicts = [sequence.judge(run, seq) for run, seq in told]
    assert [v and v.lost for v in verdicts] == [0, 0, None, 0]


def test_a_late_event_of_the_run_before_is_taken_and_restarts_nothing():
    sequence = Sequence(is_state=False)
    told = [("a", 5), ("b", 1), ("a", 8), ("a", 8), ("b", 2)]
    verdicts = [sequence.judge(run, seq) for run, seq in told]
    assert [v and (v.lost, v.restarted) for v in verdicts] == [
        (0, False), (0, True), (2, False), None, (0, False),
    ]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_what_was_taken_and_what_was_lost_make_up_the_whole(seqs):
    sequence = Sequence(is_state=True)
    taken = [v for seq in seqs if (v := sequence.judge("a", seq)) is not None]
    assert len(taken) + sum(v.lost for v in taken) == max(seqs) - seqs[0] + 1


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(1, 30)), st.integers(1, 30))
def test_what_was_lost_is_exactly_what_was_not_heard(heard, last):
    sequence = Sequence(is_state=False)
    sequence.judge("a", 0)
    told = sorted(heard | {last})
    lost = sum(verdict.lost for seq in told if (verdict := sequence.judge("a", seq)))
    assert lost == len(set(range(1, told[-1] + 1)) - set(told))
