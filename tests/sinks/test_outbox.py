import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from monitor.sinks.outbox import Outbox
from tests.sinks.builders import depth, liquidation, status


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def outbox(limit=10, state_ttl_s=30.0, clock=None):
    return Outbox(limit, state_ttl_s, clock or Clock())


def messages(entries):
    return [entry.message for entry in entries]


def test_only_the_latest_state_of_a_kind_and_asset_waits():
    box = outbox()
    box.put(depth("BTC", seq=1))
    box.put(depth("ETH", seq=1))
    box.put(depth("BTC", seq=2))
    assert messages(box.take_now()) == [depth("ETH", seq=1), depth("BTC", seq=2)]
    assert (box.discarded_intentional, box.discarded_unintentional) == (1, 0)


def test_events_beyond_the_limit_push_out_the_oldest_and_are_counted():
    box = outbox(limit=3)
    for seq in range(1, 6):
        box.put(liquidation(seq=seq))
    assert [m.seq for m in messages(box.take_now())] == [3, 4, 5]
    assert (box.discarded_intentional, box.discarded_unintentional) == (0, 2)


async def test_take_waits_for_the_first_message():
    box = outbox()
    waiting = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    box.put(status())
    assert messages(await waiting) == [status()]


async def test_take_does_not_end_on_states_that_have_all_expired():
    clock = Clock()
    box = outbox(state_ttl_s=30.0, clock=clock)
    box.put(depth())
    clock.now += 30.0
    waiting = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    box.put(liquidation())
    assert messages(await waiting) == [liquidation()]
    assert box.discarded_intentional == 1


def test_states_come_before_events_and_events_in_portions():
    box = outbox()
    box.put(liquidation(seq=1))
    box.put(liquidation(seq=2))
    box.put(depth())
    assert messages(box.take_now(most=1)) == [depth(), liquidation(seq=1)]
    assert messages(box.take_now(most=1)) == [liquidation(seq=2)]


def test_a_restored_state_does_not_overtake_a_newer_one():
    box = outbox()
    box.put(depth(seq=1))
    taken = box.take_now()
    box.put(depth(seq=2))
    box.restore(taken)
    assert messages(box.take_now()) == [depth(seq=2)]
    assert box.discarded_intentional == 1


def test_a_restored_state_does_not_return_after_a_newer_one_was_taken():
    box = outbox()
    box.put(depth(seq=1))
    taken = box.take_now()
    box.put(depth(seq=2))
    box.take_now()
    box.restore(taken)
    assert len(box) == 0


def test_a_restored_event_comes_back_to_its_place():
    box = outbox()
    for seq in range(1, 5):
        box.put(liquidation(seq=seq))
    first, second, third = box.take_now(most=3)
    box.restore([first, third])
    box.restore([second])
    assert [m.seq for m in messages(box.take_now())] == [1, 2, 3, 4]


def test_renewing_brings_back_the_last_value_of_every_state_but_no_event():
    box = outbox()
    box.put(depth("BTC"))
    box.put(liquidation())
    box.put(status())
    box.take_now()
    box.renew()
    assert messages(box.take_now()) == [depth("BTC"), status()]


def test_a_state_the_engine_has_stopped_publishing_is_not_renewed():
    clock = Clock()
    box = outbox(state_ttl_s=30.0, clock=clock)
    box.put(depth("BTC"))
    box.take_now()
    clock.now += 20.0
    box.put(depth("ETH"))
    box.take_now()
    clock.now += 10.0
    box.renew()
    entries = box.take_now()
    assert messages(entries) == [depth("ETH")]
    assert box.remaining_s(entries[0]) == 20.0


def test_what_is_abandoned_is_counted_as_lost():
    box = outbox()
    box.put(depth())
    box.put(liquidation())
    assert box.abandon() == 2
    assert (len(box), box.discarded_unintentional) == (0, 2)


class OutboxMachine(RuleBasedStateMachine):
    """Random histories against what a reader must see: order, no loss uncounted, no stale state."""

    @initialize(limit=st.integers(1, 5))
    def begin(self, limit):
        self.clock = Clock()
        self.box = Outbox(limit, 30.0, self.clock)
        self.put_events = 0
        self.delivered_events = []
        self.latest = {}
        self.shown = {}
        self.in_flight = []

    @rule(asset=st.sampled_from("AB"))
    def put_state(self, asset):
        seq = self.latest.get(asset, 0) + 1
        self.latest[asset] = seq
        self.box.put(depth(asset, seq=seq))

    @rule()
    def put_event(self):
        self.put_events += 1
        self.box.put(liquidation(seq=self.put_events))

    @rule(most=st.integers(1, 4), ok=st.integers(0, 6))
    def take(self, most, ok):
        if self.in_flight:
            return
        entries = self.box.take_now(most)
        for entry in entries[:ok]:
            self._delivered(entry.message)
        self.in_flight = entries[ok:]

    @rule()
    def restore(self):
        self.box.restore(self.in_flight)
        self.in_flight = []

    @rule()
    def renew(self):
        self.box.renew()

    def _delivered(self, message):
        if message.kind == "depth":
            assert message.seq >= self.shown.get(message.asset, 0)
            self.shown[message.asset] = message.seq
        else:
            self.delivered_events.append(message.seq)

    @invariant()
    def events_are_delivered_in_order_and_once(self):
        if hasattr(self, "box"):
            assert self.delivered_events == sorted(set(self.delivered_events))

    def teardown(self):
        if not hasattr(self, "box"):
            return
        self.box.restore(self.in_flight)
        for entry in self.box.take_now():
            self._delivered(entry.message)
        assert len(self.box) == 0
        assert self.shown == self.latest
        assert len(self.delivered_events) + self.box.discarded_unintentional == self.put_events


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=60, deadline=None)


@given(st.lists(st.integers(0, 3), max_size=50), st.integers(1, 5))
def test_nothing_grows_beyond_the_limit_and_the_number_of_states(assets, limit):
    box = outbox(limit=limit)
    for seq, asset in enumerate(assets, 1):
        box.put(liquidation(str(asset), seq=seq))
        box.put(depth(str(asset), seq=seq))
        assert len(box) <= limit + 4
