import asyncio
from contextlib import suppress
from itertools import count, pairwise

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidURI

from monitor.events import Frame, Lost, Opened
from monitor.feeds.websocket import (
    BURST,
    FAILURES,
    LOSSES,
    SEND_QUEUE_MAX,
    FeedTiming,
    Pace,
    WebSocketFeed,
)
from monitor.venues.base import FeedSpec
from tests.feeds.conftest import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Ears,
    Peer,
    eventually,
    frame,
    running,
    serving,
    steady,
)

NAME = "somewhere.public.0"

QUICK = {
    "close_timeout_s": 0.05,
    "check_interval_s": 0.002,
    "retry_first_s": 0.001,
    "retry_max_s": 0.004,
}


def feed_of(port: int, ears: Ears, *, now=None, spec=None, feed=None, **timing) -> WebSocketFeed:
    return WebSocketFeed(
        FeedSpec(NAME, f"ws://127.0.0.1:{port}/public", **(spec or {})),
        ears.inbox,
        now or count(1).__next__,
        timing=FeedTiming(**{**QUICK, **timing}),
        **(feed or {}),
    )


def port_of(server) -> int:
    return next(iter(server.sockets)).getsockname()[1]


async def silent(connection: ServerConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            await connection.recv()


async def hold(peer: Peer) -> None:
    await peer.upgrade()
    await peer.gone()


def answering(answer: str):
    async def refuse(peer: Peer) -> None:
        await peer.head()
        peer.write(answer.replace("\n", "\r\n").encode())
        await peer.gone()

    return refuse


# ------------------------------------------------------------------------------ what arrives


async def test_what_arrives_is_handed_over_unchanged_in_order_and_stamped(ears):
    sent = ["text", "ümläut €".encode(), b"\xff\x00 not text", "", "x" * 70_000]

    async def speak(connection: ServerConnection) -> None:
        for message in sent:
            await connection.send(message)
        await silent(connection)

    async with serve(speak, "127.0.0.1", 0) as server:
        feed = feed_of(port_of(server), ears)
        async with running(feed.run()):
            await eventually(lambda: len(ears.heard) == 6)
            assert feed.connected
            assert feed.connects == 1
    data = [message.encode() if isinstance(message, str) else message for message in sent]
    assert ears.heard[:6] == [
        Opened(1, NAME),
        *(Frame(at, NAME, message) for at, message in enumerate(data, 2)),
    ]
    assert feed.messages == 5
    assert feed.bytes == sum(map(len, data))
    assert not feed.connected


async def test_a_fragmented_message_is_one_frame(ears):
    async def speak(connection: ServerConnection) -> None:
        await connection.send(["one ", "two ", "three"])
        await silent(connection)

    async with serve(speak, "127.0.0.1", 0) as server:
        feed = feed_of(port_of(server), ears)
        async with running(feed.run()):
            await eventually(lambda: ears.frames)
    assert ears.frames == [b"one two three"]


async def test_a_burst_leaves_other_tasks_their_turn(ears):
    ears.inbox.limit = 10**6
    seen = []

    async def speak(peer: Peer) -> None:
        await peer.upgrade()
        peer.write(frame(b"x" * 20) * 20_000)
        await peer.gone()

    async def spy() -> None:
        while True:
            seen.append(feed.messages)
            await asyncio.sleep(0)

    async with serving(speak) as port:
        feed = feed_of(port, ears)
        async with running(feed.run()), running(spy()):
            await eventually(lambda: feed.messages == 20_000)
    assert max(b - a for a, b in pairwise(seen)) <= BURST


async def test_a_flood_fills_the_inbox_and_then_slows_the_venue_and_nothing_is_lost():
    ears, messages, told = Ears(limit=10), 640, []

    async def flood(connection: ServerConnection) -> None:
        for number in range(messages):
            await connection.send(b"%06d" % number + bytes(100_000))
            told.append(number)
        await silent(connection)

    async with serve(flood, "127.0.0.1", 0, compression=None) as server:
        # So little patience for silence would end the connection if our own delay counted as such.
        feed = feed_of(port_of(server), ears, ping_interval_s=0.2, ping_timeout_s=0.2)
        async with running(feed.run()):
            await eventually(lambda: len(ears.inbox) == 10)
            await steady(lambda: len(told), for_s=0.6)
            assert len(ears.inbox) == 10
            assert feed.messages == 10  # nine and `Opened` wait, and one waits for room
            assert len(told) < messages  # the rest waits at the venue
            async with running(ears.listen()):
                await eventually(lambda: len(ears.frames) == messages)
    assert [int(data[:6]) for data in ears.frames] == list(range(messages))
    assert not any(feed.losses[reason] for reason in LOSSES if reason != "stopped")


# -------------------------------------------------------------------------- failing to connect


async def test_a_refused_connection_is_tried_until_somebody_listens(ears):
    async with serving(hold) as port:
        pass
    feed = feed_of(port, ears)
    async with running(feed.run()):
        await eventually(lambda: feed.failures["refused"] >= 3)
        assert ears.heard == []
        assert not feed.connected
        assert feed.last_reason == "refused"
        async with serving(hold, port):
            await eventually(lambda: feed.connected)
    assert ears.heard[0] == Opened(1, NAME)


@pytest.mark.parametrize(
    ("answer", "reason", "least_s", "most_s"),
    [
        ("HTTP/1.1 403 Forbidden\nContent-Length: 0\n\n", "blocked", 300, 400),
        ("HTTP/1.1 451 No\nContent-Length: 2\n\nno", "blocked", 300, 400),
        ("HTTP/1.1 429 Slowly\nContent-Length: 0\n\n", "throttled", 60, 80),
        ("HTTP/1.1 429 S\nRetry-After: 7\nContent-Length: 0\n\n", "throttled", 7, 9),
        (
            "HTTP/1.1 429 S\nRetry-After: 5\nRetry-After: 7\nContent-Length: 0\n\n",
            "throttled",
            5,
            9,
        ),
        ("HTTP/1.1 418 S\nRetry-After: 99999999\nContent-Length: 0\n\n", "throttled", 3600, 4600),
        ("HTTP/1.1 429 S\nRetry-After: soon\nContent-Length: 0\n\n", "throttled", 60, 80),
        ("HTTP/1.1 503 Later\nRetry-After: 9\nContent-Length: 0\n\n", "unavailable", 9, 12),
        ("HTTP/1.1 502 Bad\nContent-Length: 0\n\n", "unavailable", 0.5, 1),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", "handshake", 0.5, 1),
        ("HTTP/1.1 101 Switching Protocols\n\n", "handshake", 0.5, 1),
        ("HTTP/1.1 302 Found\nLocation: nonsense:\nContent-Length: 0\n\n", "handshake", 0.5, 1),
        ("SSH-2.0-OpenSSH_9.6\n\n", "handshake", 0.5, 1),
    ],
)
async def test_an_answer_that_is_no_upgrade_has_its_reason_and_its_wait(
    ears, answer, reason, least_s, most_s
):
    async with serving(answering(answer)) as port:
        feed = feed_of(port, ears, retry_first_s=1.0, retry_max_s=60.0)
        async with running(feed.run()):
            await eventually(lambda: feed.failures[reason] == 1)
            assert least_s <= feed.delay_s <= most_s
            assert feed.attempts == 1
    assert feed.connects == 0
    assert sum(feed.failures.values()) == 1
    assert ears.heard == []


async def test_a_handshake_cut_short_is_tried_again(ears):
    async def cut(peer: Peer) -> None:
        await peer.head()
        peer.write(b"HTTP/1.1 101 Switch")

    async with serving(cut) as port:
        feed = feed_of(port, ears)
        async with running(feed.run()):
            await eventually(lambda: feed.failures["handshake"] >= 2)
    assert ears.heard == []


async def test_a_handshake_that_hangs_times_out(ears):
    async with serving(Peer.gone) as port:
        feed = feed_of(port, ears, open_timeout_s=0.02)
        async with running(feed.run()):
            await eventually(lambda: feed.failures["timeout"] >= 2)
    assert ears.heard == []


async def test_an_unencrypted_venue_behind_wss_is_a_tls_failure(ears):
    async def speak_plainly(peer: Peer) -> None:
        peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with serving(speak_plainly) as port:
        feed = WebSocketFeed(
            FeedSpec(NAME, f"wss://127.0.0.1:{port}"),
            ears.inbox,
            count().__next__,
            timing=FeedTiming(retry_first_s=1000.0, retry_max_s=1000.0),
        )
        async with running(feed.run()):
            await eventually(lambda: feed.last_reason)
    assert feed.last_reason == "tls"


async def test_a_wrong_address_is_refused_before_anything_runs(ears):
    with pytest.raises(InvalidURI):
        WebSocketFeed(FeedSpec(NAME, "https://example.org"), ears.inbox, count().__next__)


async def test_the_wait_doubles_up_to_its_cap_and_is_jittered(ears):
    timing = {"retry_first_s": 1.0, "retry_max_s": 60.0}
    late = feed_of(1, ears, **timing, feed={"jitter": lambda: 1.0})
    soon = feed_of(1, ears, **timing, feed={"jitter": lambda: 0.0})
    waits = []
    for attempts in [*range(1, 9), 10_000]:
        late.attempts = soon.attempts = attempts
        waits.append(late._back_off())
        assert soon._back_off() == late._back_off() / 2
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_only_a_connection_that_lasted_resets_the_wait(ears):
    async def goodbye(peer: Peer) -> None:
        await peer.upgrade()

    async with serving(goodbye) as port:
        brief = feed_of(port, ears)
        async with running(brief.run()):
            await eventually(lambda: brief.connects >= 4)
            assert brief.attempts >= 4
        lasting = feed_of(port, ears, stable_after_s=0.0)
        async with running(lasting.run()):
            await eventually(lambda: lasting.connects >= 4)
            assert lasting.attempts <= 1


async def test_feeds_of_one_venue_connect_one_after_the_other():
    pace, turns = Pace(0.02), []
    loop = asyncio.get_running_loop()

    async def attempt() -> None:
        await pace.turn()
        turns.append(loop.time())

    await asyncio.gather(*(attempt() for _ in range(4)))
    assert turns[3] - turns[0] >= 0.059


# ------------------------------------------------------------------------------ being lost


async def lose(ears: Ears, end, **options) -> WebSocketFeed:
    """A feed whose first connection ends by `end`, and that is connected again."""
    connections = count()

    async def once(peer: Peer) -> None:
        await peer.upgrade()
        if next(connections) == 0:
            await end(peer)
        else:
            peer.write(frame(b"again"))
            await peer.gone()

    async with serving(once) as port:
        feed = feed_of(port, ears, **options)
        async with running(feed.run()):
            await eventually(lambda: b"again" in ears.frames)
            assert feed.connected
            assert feed.connects == 2
            assert ears.is_alternating()
    return feed


async def test_a_cut_in_the_middle_of_a_frame_loses_the_connection_and_the_torn_message(ears):
    async def end(peer: Peer) -> None:
        peer.write(frame(b"whole") + frame(b"torn" * 50)[:100])

    feed = await lose(ears, end)
    assert ears.lost[0] == "cut"
    assert ears.frames == [b"whole", b"again"]
    assert feed.losses["cut"] == 1


async def test_a_goodbye_is_a_loss(ears):
    async def end(peer: Peer) -> None:
        peer.write(frame(b"\x03\xe9restart", CLOSE))
        await peer.gone()

    feed = await lose(ears, end)
    assert ears.lost[0] == "closed"
    assert feed.losses["closed"] == 1


async def test_a_reset_is_a_loss(ears):
    async def end(peer: Peer) -> None:
        peer.writer.transport.abort()

    await lose(ears, end)
    assert ears.lost[0] == "cut"


async def test_a_message_too_large_loses_only_its_connection(ears):
    async def end(peer: Peer) -> None:
        peer.write(frame(b"x" * 1000) + frame(b"y" * 1001) + frame(b"z"))
        await peer.gone()  # and never answers our close

    feed = await lose(ears, end, feed={"frame_bytes_max": 1000})
    assert ears.lost[0] == "too_large"
    assert ears.frames == [b"x" * 1000, b"again"]
    assert feed.losses["too_large"] == 1


async def test_bytes_that_are_no_frames_are_a_protocol_loss(ears):
    async def end(peer: Peer) -> None:
        peer.write(b"\xff\xff\xff\xff")
        await peer.gone()

    await lose(ears, end)
    assert ears.lost[0] == "protocol"


async def test_a_peer_that_neither_speaks_nor_answers_pings_is_hung(ears):
    feed = await lose(ears, Peer.gone, ping_interval_s=0.2, ping_timeout_s=0.2)
    assert ears.lost[0] == "hung"
    assert feed.losses["hung"] >= 1


async def test_a_silent_peer_that_answers_pings_is_not_hung(ears):
    pings = []

    async def answer(peer: Peer) -> None:
        await peer.upgrade()
        while True:
            opcode, data = await peer.read()
            if opcode == PING:
                pings.append(data)
                peer.write(frame(data, PONG))

    async with serving(answer) as port:
        feed = feed_of(port, ears, ping_interval_s=0.004, ping_timeout_s=30.0)
        async with running(feed.run()):
            await eventually(lambda: len(pings) >= 20)
            assert feed.connects == 1
            assert feed.connected


async def test_a_peer_that_speaks_but_answers_no_ping_is_not_hung(ears):
    async def speak(peer: Peer) -> None:
        await peer.upgrade()
        for _ in range(100):
            peer.write(frame(b"."))
            await asyncio.sleep(0.01)
        peer.write(frame(b"last"))
        await peer.gone()

    async with serving(speak) as port:
        feed = feed_of(port, ears, ping_interval_s=0.1, ping_timeout_s=0.3)
        async with running(feed.run()):
            await eventually(lambda: b"last" in ears.frames)
            assert feed.connects == 1


async def test_a_connection_is_renewed_before_its_lifetime_ends(ears):
    async with serving(hold) as port:
        feed = feed_of(port, ears, spec={"lifetime_s": 0.02})
        async with running(feed.run()):
            await eventually(lambda: feed.connects >= 3)
    assert ears.lost[:2] == ["lifetime", "lifetime"]
    assert ears.is_alternating()


async def test_every_opened_has_one_lost_whatever_happens(ears):
    ends = [b"", b"\xff", frame(b"\x03\xe8", CLOSE), frame(b"a"), frame(b"b" * 300)[:50]]
    turns = count()

    async def misbehave(peer: Peer) -> None:
        turn = next(turns)
        if turn % 7 == 3:
            return
        await peer.upgrade()
        peer.write(ends[turn % len(ends)])

    async with serving(misbehave) as port:
        feed = feed_of(port, ears)
        async with running(feed.run()):
            for _ in range(40):
                feed.close("at random")
                feed.send("into the void")
                done = feed.connects
                await eventually(lambda done=done: feed.connects > done)
    await eventually(lambda: len(ears.only(Lost)) == len(ears.only(Opened)))
    assert ears.is_alternating()
    assert len(ears.only(Opened)) in {feed.connects, feed.connects - 1}
    assert set(feed.losses) == set(LOSSES)
    assert set(feed.failures) == set(FAILURES)


# ------------------------------------------------------------------------------- commands


async def listening(heard: list[str], connection: ServerConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            heard.append(await connection.recv())


async def test_messages_are_sent_in_order_with_the_venues_pause_between_them(ears):
    heard, loop = [], asyncio.get_running_loop()

    async def listen(connection: ServerConnection) -> None:
        await listening(heard, connection)

    async with serve(listen, "127.0.0.1", 0) as server:
        feed = feed_of(port_of(server), ears, spec={"send_interval_s": 0.01})
        async with running(feed.run()):
            await eventually(lambda: feed.connected)
            start = loop.time()
            for number in range(6):
                feed.send(f"{number}")
            await eventually(lambda: len(heard) == 6)
            assert loop.time() - start >= 0.049
    assert heard == ["0", "1", "2", "3", "4", "5"]
    assert feed.sent == 6


async def test_messages_are_text(ears):
    heard = []

    async def listen(peer: Peer) -> None:
        await peer.upgrade()
        heard.append(await peer.read())
        await peer.gone()

    async with serving(listen) as port:
        feed = feed_of(port, ears)
        async with running(feed.run()):
            await eventually(lambda: feed.connected)
            feed.send('{"op":"€"}')
            await eventually(lambda: heard)
    assert heard == [(TEXT, '{"op":"€"}'.encode())]
    assert TEXT != BINARY


async def test_a_message_without_a_connection_is_dropped_and_counted(ears):
    heard = []

    async def listen(connection: ServerConnection) -> None:
        await listening(heard, connection)

    async with serve(listen, "127.0.0.1", 0) as server:
        feed = feed_of(port_of(server), ears)
        feed.send("too early")
        async with running(feed.run()):
            await eventually(lambda: feed.connected)
            feed.send("in time")
            await eventually(lambda: heard)
        feed.send("too late")
    assert heard == ["in time"]
    assert feed.unsent == 2


async def test_more_to_send_than_the_queue_holds_loses_the_connection(ears):
    async with serving(hold) as port:
        feed = feed_of(port, ears, spec={"send_interval_s": 10.0})
        async with running(feed.run()):
            await eventually(lambda: feed.connected)
            for _ in range(SEND_QUEUE_MAX + 1):
                feed.send("x")
            await eventually(lambda: feed.connects == 2)
    assert ears.lost[0] == "overflow"
    assert feed.losses["overflow"] == 1
    assert feed.unsent + feed.sent == SEND_QUEUE_MAX + 1


async def test_a_venue_that_does_not_read_loses_the_connection(ears):
    go_on = asyncio.Event()

    async def deaf(peer: Peer) -> None:
        await peer.upgrade()
        peer.writer.transport.pause_reading()
        await go_on.wait()

    async with serving(deaf) as port:
        feed = feed_of(port, ears, send_timeout_s=0.02)
        async with running(feed.run()):
            await eventually(lambda: feed.connected)
            for _ in range(40):
                feed.send("x" * 1_000_000)
            await eventually(lambda: ears.lost)
            go_on.set()
    assert ears.lost[0] == "send_timeout"


async def test_the_keep_alive_goes_out_again_and_again_and_before_a_long_queue(ears):
    heard = []

    async def listen(connection: ServerConnection) -> None:
        await listening(heard, connection)

    spec = {"ping": "ping", "ping_after_s": 0.01, "send_interval_s": 0.004}
    async with serve(listen, "127.0.0.1", 0) as server:
        feed = feed_of(port_of(server), ears, spec=spec)
        async with running(feed.run()):
            await eventually(lambda: feed.connected)
            for number in range(200):
                feed.send(f"{number}")
            await eventually(lambda: heard.count("ping") >= 3)
            assert "199" not in heard
    assert [text for text in heard if text != "ping"] == [
        str(number) for number in range(len(heard) - heard.count("ping"))
    ]


async def test_close_loses_the_connection_with_its_reason_and_connects_again(ears):
    goodbyes = []

    async def listen(connection: ServerConnection) -> None:
        await connection.wait_closed()
        goodbyes.append(connection.close_code)

    async with serve(listen, "127.0.0.1", 0) as server:
        feed = feed_of(port_of(server), ears)
        feed.close("nothing to close yet")
        async with running(feed.run()):
            await eventually(lambda: feed.connected)
            feed.close("silent")
            feed.close("once more")
            await eventually(lambda: feed.connects == 2 and feed.connected)
            assert feed.last_reason == "silent"
    await eventually(lambda: len(ears.lost) == 2)
    assert ears.lost == ["silent", "stopped"]
    assert feed.losses["asked"] == 1
    assert goodbyes[0] == 1000
    assert ears.is_alternating()


async def test_nothing_queued_for_one_connection_is_sent_on_the_next(ears):
    heard = []

    async def listen(connection: ServerConnection) -> None:
        await listening(heard, connection)

    async with serve(listen, "127.0.0.1", 0) as server:
        feed = feed_of(port_of(server), ears, spec={"send_interval_s": 0.005})
        async with running(feed.run()):
            await eventually(lambda: feed.connected)
            for number in range(100):
                feed.send(f"{number}")
            feed.close("resubscribe")
            await eventually(lambda: feed.connects == 2 and feed.connected)
            feed.send("new")
            await eventually(lambda: "new" in heard)
    assert "99" not in heard


# ----------------------------------------------------------------------------- cancellation


async def cancelled(feed: WebSocketFeed, when) -> None:
    """Run, cancel when it is so, and see that nothing is left."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(feed.run())
    await eventually(when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left = {each for each in asyncio.all_tasks() - before if NAME in each.get_name()}
    assert not left
    assert not feed.connected


async def test_cancelling_an_open_feed_says_lost_and_leaves_no_task_and_no_socket(ears):
    before, gone = asyncio.all_tasks(), asyncio.Event()

    async def watch(peer: Peer) -> None:
        await peer.upgrade()
        await peer.gone()
        gone.set()

    async with serving(watch) as port:
        feed = feed_of(port, ears, spec={"ping": "ping"})
        await cancelled(feed, lambda: feed.connected)
        await asyncio.wait_for(gone.wait(), 60)
    await eventually(lambda: ears.lost == ["stopped"])
    assert feed.losses["stopped"] == 1
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


async def test_cancelling_during_the_handshake_leaves_nothing(ears):
    heads = []

    async def hang(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.gone()

    async with serving(hang) as port:
        await cancelled(feed_of(port, ears), lambda: heads)
    assert ears.heard == []


async def test_cancelling_during_the_back_off_leaves_nothing(ears):
    async with serving(hold) as port:
        pass
    feed = feed_of(port, ears, retry_first_s=1000.0, retry_max_s=1000.0)
    await cancelled(feed, lambda: feed.delay_s)
    assert ears.heard == []


async def test_cancelling_does_not_wait_for_a_full_inbox_and_the_lost_is_not_forgotten():
    ears = Ears(limit=3)

    async def speak(peer: Peer) -> None:
        await peer.upgrade()
        peer.write(frame(b"x") * 100)
        await peer.gone()

    async with serving(speak) as port:
        feed = feed_of(port, ears)
        await cancelled(feed, lambda: feed.messages == 3)
        assert len(ears.inbox) == 3
        async with running(feed.run()), running(ears.listen()):
            await eventually(lambda: len(ears.only(Opened)) == 2)
    assert ears.lost[0] == "stopped"
    assert ears.is_alternating()


async def test_a_cancellation_is_not_forgotten_when_the_connection_ends_in_the_same_turn(ears):
    async with serving(hold) as port:
        feed = feed_of(port, ears)
        before = asyncio.all_tasks()
        task = asyncio.create_task(feed.run())
        await eventually(lambda: feed.connected)
        feed.close("first")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)
        assert not {each for each in asyncio.all_tasks() - before if NAME in each.get_name()}


async def test_a_mistake_of_ours_is_raised_and_not_taken_for_a_network_error(ears):
    async def speak(peer: Peer) -> None:
        await peer.upgrade()
        peer.write(frame(b"x"))
        await peer.gone()

    times = iter([1, 0, 1])  # the second is that of the frame

    def now() -> int:
        return 1 // next(times)

    async with serving(speak) as port:
        feed = feed_of(port, ears, now=now)
        with pytest.raises(ExceptionGroup) as raised:
            await asyncio.wait_for(feed.run(), 60)
    assert raised.value.subgroup(ZeroDivisionError)
    assert not feed.connected
