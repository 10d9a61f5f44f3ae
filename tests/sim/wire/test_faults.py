"""Each fault is reached, does what it says, and is counted; the same seed does it again."""

import itertools
import json

import pytest

from monitor.sim.wire.base import NS, Message
from monitor.sim.wire.binance import Binance
from monitor.sim.wire.faults import COUNTED, NONE, Cut, Faults, Injector, SilentStream

TOPIC = "btcusdt@depth@100ms"


def deliver(faults, count=200, *, kind="book", venue="binance", topic=TOPIC, step_s=0.1):
    """What reaches a client of so many numbered messages, and what was counted."""
    injector = Injector(faults, venue, 0)
    link = injector.link(0)
    out = []
    for n in range(count):
        data = json.dumps({"n": n, "b": [["1.5", "2.5"]]}).encode()
        message = Message(topic, kind, data)
        out.append(link.deliver(round(n * step_s * NS), message, data))
    return out, injector.counts


def numbers(out):
    return [json.loads(data)["n"] for items in out for data in items]


def test_without_faults_everything_arrives_and_nothing_is_counted():
    out, counts = deliver(NONE)
    assert numbers(out) == list(range(200))
    assert set(counts) == set(COUNTED)
    assert not counts.total()


def test_gaps_are_missing_messages():
    out, counts = deliver(Faults(gap=0.1))
    missing = set(range(200)) - set(numbers(out))
    assert 0 < len(missing) == counts["gap"] == counts.total()


def test_duplicates_follow_at_once():
    out, counts = deliver(Faults(duplicate=0.1))
    twice = [items for items in out if len(items) == 2]
    assert 0 < len(twice) == counts["duplicate"]
    assert all(a == b for a, b in twice)


def test_a_reordered_message_follows_its_successor():
    out, counts = deliver(Faults(reorder=0.1))
    found = numbers(out)
    assert sorted(found) == list(range(found[0], 200)) or len(set(found)) >= 199
    swapped = [b for a, b in itertools.pairwise(found) if b < a]
    assert 0 < len(swapped) <= counts["reorder"]


@pytest.mark.parametrize("venue", ["binance", "bybit", "okx", "hyperliquid"])
def test_malformed_frames_are_of_every_kind(venue):
    out, counts = deliver(Faults(malformed=0.5), venue=venue)
    kinds = ("truncated", "nan", "wrong_type", "unknown_kind")
    assert all(counts[kind] for kind in kinds)
    broken = 0
    for data in (d for items in out for d in items):
        try:
            json.loads(data)
        except ValueError:
            broken += 1
    assert broken == counts["truncated"]


def test_only_the_kinds_asked_for_are_disturbed():
    out, counts = deliver(Faults(gap=0.5, malformed=0.5), kind="trade")
    assert numbers(out) == list(range(200))
    assert not counts.total()
    _, counts = deliver(Faults(gap=0.5, kinds=("trade",)), kind="trade")
    assert counts["gap"]


def test_a_cut_ends_the_connection_within_a_frame_or_between_two():
    found = set()
    for seed in range(8):
        out, counts = deliver(Faults(seed=seed, cuts_at_s=(3.0,)), count=31)
        (last,) = out[30]
        assert isinstance(last, Cut)
        assert all(not isinstance(item, Cut) for items in out[:30] for item in items)
        found.add("cut" if counts["cut"] else "cut_mid_frame")
        assert bool(last.begun) == bool(counts["cut_mid_frame"])
    assert found == {"cut", "cut_mid_frame"}


def test_a_connection_made_after_a_scheduled_cut_does_not_suffer_it():
    injector = Injector(Faults(cuts_at_s=(3.0,)), "okx", 0)
    link = injector.link(4 * NS)
    assert link.deliver(5 * NS, Message("x", "book", b"{}"), b"{}") == [b"{}"]


def test_a_topic_goes_silent_by_schedule_and_by_chance():
    schedule = (SilentStream("btcusdt", 5.0, 3.0),)
    out, counts = deliver(Faults(silences=schedule))
    assert set(range(200)) - set(numbers(out)) == set(range(50, 80))
    assert counts["silenced"] == 30
    out, counts = deliver(Faults(silence=0.02, silence_s=2.0))
    assert counts["silence"] > 0
    assert counts["silenced"] == 200 - len(numbers(out))


def test_faults_begin_and_end_when_they_should():
    out, _ = deliver(Faults(gap=1.0, start_s=5.0, until_s=10.0))
    assert numbers(out) == [*range(50), *range(100, 200)]


def test_http_is_slow_and_throttled_at_its_rates():
    injector = Injector(Faults(slow_http=0.3, throttle=0.2, retry_after_s=7), "okx", 0)
    found = [injector.http(0) for _ in range(300)]
    slow = [f for f in found if f.delay_s]
    refused = [f for f in found if f.retry_after_s == 7]
    assert 50 < len(slow) == injector.counts["slow_http"] < 130
    assert 30 < len(refused) == injector.counts["throttled"] < 90


def test_a_skewed_clock_shows_in_every_time(quiet):
    right, wrong = Binance(quiet), Binance(quiet, skew_ms=-1_500)
    assert right.time_ms() - wrong.time_ms() == 1_500
    injector = Injector(Faults(skew_ms=-1_500), "binance", 0)
    injector.link(0)
    assert injector.counts["skew"] == 1


def test_the_same_seed_has_the_same_faults():
    faults = Faults(seed=9, gap=0.1, duplicate=0.1, reorder=0.1, malformed=0.1, cut=0.01)
    assert deliver(faults) == deliver(faults)
    other = Faults(seed=8, gap=0.1, duplicate=0.1, reorder=0.1, malformed=0.1, cut=0.01)
    assert deliver(faults)[0] != deliver(other)[0]
