import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from itertools import count

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.events import NS, Fetch, Reply
from monitor.feeds.http import (
    DEFAULT_TIMING,
    FAILURES,
    QUEUE_MAX,
    Bucket,
    HttpFeed,
    HttpTiming,
    retry_after_s,
)
from monitor.venues.base import REPLY_PATIENCE_S, HttpSpec
from tests.feeds.conftest import Ears, Peer, eventually, running, serving

VENUE = "somewhere"


def feed_of(
    url: str,
    ears: Ears,
    *,
    weight=100_000,
    window_s=1.0,
    now=None,
    reply_bytes_max=1 << 20,
    **timing,
) -> HttpFeed:
    return HttpFeed(
        VENUE,
        HttpSpec(url, weight=weight, window_s=window_s),
        ears.inbox,
        now or count(1).__next__,
        timing=HttpTiming(**timing),
        reply_bytes_max=reply_bytes_max,
        jitter=lambda: 0.0,
    )


def fetch(key: str, path: str | None = None, **options) -> Fetch:
    return Fetch(VENUE, key, path or f"/{key}", **options)


@asynccontextmanager
async def site(handle) -> AsyncIterator[str]:
    """An HTTP server that answers everything by `handle`; gives its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[str]:
    """A server that answers each request by these bytes and hangs up."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        peer.write(answer)
        await peer.writer.drain()

    async with serving(serve) as port:
        yield f"http://127.0.0.1:{port}"


def replies(ears: Ears) -> dict[str, tuple[int, bytes]]:
    return {reply.key: (reply.status, reply.data) for reply in ears.only(Reply)}


# ------------------------------------------------------------------------------- asking


async def test_an_answer_comes_back_with_its_key_status_and_bytes(ears):
    async def handle(request: web.Request) -> web.Response:
        if request.path == "/missing":
            return web.Response(status=404, text="no such thing")
        return web.Response(body=b"\xff\x00" + request.path_qs.encode())

    async with site(handle) as url:
        feed = feed_of(url, ears, in_flight=1)
        feed.fetch(fetch("depth", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"))
        feed.fetch(fetch("missing"))
        async with running(feed.run()):
            await eventually(lambda: len(ears.heard) == 2)
    assert ears.heard == [
        Reply(1, VENUE, "depth", 200, b"\xff\x00/fapi/v1/depth?symbol=BTCUSDT&limit=1000"),
        Reply(2, VENUE, "missing", 404, b"no such thing"),
    ]
    assert feed.requests == 2
    assert feed.answers == {200: 1, 404: 1}


async def test_a_body_is_posted_as_json(ears):
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {request.content_type} {await request.text()}")

    async with site(handle) as url:
        feed = feed_of(url, ears)
        feed.fetch(fetch("info", body=b'{"type":"meta"}'))
        feed.fetch(fetch("get"))
        async with running(feed.run()):
            await eventually(lambda: len(ears.heard) == 2)
    assert replies(ears)["info"] == (200, b'POST application/json {"type":"meta"}')
    assert replies(ears)["get"][1].startswith(b"GET ")


@pytest.mark.parametrize(
    ("end", "path"), [("", "info"), ("", "/info"), ("/", "info"), ("/", "//info")]
)
async def test_address_and_path_are_joined_by_one_slash(ears, end, path):
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=request.raw_path)

    async with site(handle) as url:
        feed = feed_of(url + "/v5" + end, ears)
        feed.fetch(fetch("key", path))
        async with running(feed.run()):
            await eventually(lambda: ears.heard)
    assert replies(ears)["key"] == (200, b"/v5/info")


async def test_a_redirect_is_not_followed(ears):
    async def handle(request: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere") if request.path == "/key" else web.HTTPOk

    async with site(handle) as url:
        feed = feed_of(url, ears)
        feed.fetch(fetch("key"))
        async with running(feed.run()):
            await eventually(lambda: ears.heard)
    assert replies(ears)["key"][0] == 302


async def test_a_compressed_answer_is_unpacked(ears):
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b"[1]"), headers={"Content-Encoding": "gzip"})

    async with site(handle) as url:
        feed = feed_of(url, ears)
        feed.fetch(fetch("key"))
        async with running(feed.run()):
            await eventually(lambda: ears.heard)
    assert replies(ears)["key"] == (200, b"[1]")


def test_an_address_that_is_not_http_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="somewhere: 'ftp://x' is not"):
        feed_of("ftp://x", Ears())


# ------------------------------------------------------------------------------ no answer


async def failing(ears: Ears, url: str, **options) -> HttpFeed:
    feed = feed_of(url, ears, **options)
    feed.fetch(fetch("key"))
    async with running(feed.run()):
        await eventually(lambda: ears.heard)
    assert len(ears.heard) == 1
    status, data = replies(ears)["key"]
    assert status == 0
    assert data.decode() in FAILURES
    assert feed.failures[data.decode()] == 1
    assert feed.last_reason == data.decode()
    assert sum(feed.failures.values()) == 1
    return feed


async def test_nobody_there_is_a_reply_without_status(ears):
    async with serving(Peer.gone) as port:
        pass
    await failing(ears, f"http://127.0.0.1:{port}")
    assert replies(ears)["key"] == (0, b"connect")


async def test_a_slow_answer_times_out(ears):
    async with serving(Peer.gone) as port:
        await failing(ears, f"http://127.0.0.1:{port}", timeout_s=0.03)
    assert replies(ears)["key"] == (0, b"timeout")


async def test_an_answer_that_drips_times_out_altogether(ears):
    async def drip(peer: Peer) -> None:
        await peer.head()
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            peer.write(b"x")
            await asyncio.sleep(0.002)

    async with serving(drip) as port:
        await failing(ears, f"http://127.0.0.1:{port}", timeout_s=0.05)
    assert replies(ears)["key"] == (0, b"timeout")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", b"cut"),
        (b"HTTP/1.1 200 O", b"cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", b"cut"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"protocol"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip",
            b"protocol",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", b"too_large"),
    ],
)
async def test_an_answer_that_is_none_says_why(ears, answer, reason):
    async with raw(answer) as url:
        await failing(ears, url)
    assert replies(ears)["key"] == (0, reason)


@pytest.mark.parametrize("packed", [False, True])
async def test_an_endless_answer_is_left_as_soon_as_it_is_too_large(ears, packed):
    gone = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if packed:
            response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(100_000))
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    async with site(handle) as url:
        feed = await failing(ears, url, reply_bytes_max=1_000_000)
        await asyncio.wait_for(gone.wait(), 60)
    assert replies(ears)["key"] == (0, b"too_large")
    assert feed.bytes <= 1_000_000 + (1 << 20)


async def test_after_a_failure_the_feed_goes_on(ears):
    turns = count()

    async def handle(request: web.Request) -> web.Response:
        if next(turns) % 2 == 0:
            request.transport.abort()
        return web.Response(text="fine")

    async with site(handle) as url:
        feed = feed_of(url, ears, in_flight=1)
        async with running(feed.run()):
            for number in range(6):
                feed.fetch(fetch(f"{number}", body=b"{}"))  # a POST is not repeated by the library
                await eventually(lambda number=number: f"{number}" in replies(ears))
    assert [status for status, _ in replies(ears).values()] == [0, 200] * 3


# ------------------------------------------------------------------------------- queueing


async def test_a_key_is_queued_once_and_asked_as_last_told(ears):
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    async with site(handle) as url:
        feed = feed_of(url, ears, in_flight=1)
        for key, path in [("a", "/a1"), ("b", "/b1"), ("a", "/a2")]:
            feed.fetch(fetch(key, path))
        assert len(feed) == 2
        async with running(feed.run()):
            await eventually(lambda: len(ears.heard) == 2)
    assert [(reply.key, reply.data) for reply in ears.heard] == [("a", b"/a2"), ("b", b"/b1")]
    assert feed.requests == 2


async def test_a_key_in_flight_is_not_asked_again(ears):
    go_on = asyncio.Event()

    async def handle(_: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response()

    async with site(handle) as url:
        feed = feed_of(url, ears)
        async with running(feed.run()):
            feed.fetch(fetch("a"))
            await eventually(lambda: feed.requests == 1)
            feed.fetch(fetch("a"))
            assert len(feed) == 0
            go_on.set()
            await eventually(lambda: len(ears.heard) == 1)
            feed.fetch(fetch("a"))
            await eventually(lambda: len(ears.heard) == 2)
    assert feed.requests == 2


def test_the_queue_has_a_limit_and_what_it_refuses_is_counted():
    feed = feed_of("http://127.0.0.1:1", Ears())
    for number in range(QUEUE_MAX + 3):
        feed.fetch(fetch(f"{number}"))
    feed.fetch(fetch("0", "/known"))
    assert len(feed) == QUEUE_MAX
    assert feed.dropped == 3


async def test_only_a_few_requests_are_in_flight(ears):
    now, most, go_on = 0, 0, asyncio.Event()

    async def handle(_: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await go_on.wait()
        now -= 1
        return web.Response()

    async with site(handle) as url:
        feed = feed_of(url, ears, in_flight=3)
        for number in range(20):
            feed.fetch(fetch(f"{number}"))
        async with running(feed.run()):
            await eventually(lambda: now == 3)
            go_on.set()
            await eventually(lambda: len(ears.heard) == 20)
    assert most == 3


# --------------------------------------------------------------------------------- budget


@settings(deadline=None, max_examples=50)
@given(
    weights=st.lists(st.floats(1, 60), min_size=1, max_size=80),
    idle=st.lists(st.floats(0, 20), min_size=80, max_size=80),
)
def test_no_window_sees_more_than_the_budget(weights, idle):
    budget, window = 120.0, 10.0
    bucket, clock, taken = Bucket(budget, window, 0.0), 0.0, []
    for weight, pause in zip(weights, idle, strict=False):
        clock += pause if pause > 10 else 0.0
        clock += bucket.wait_s(weight, clock)
        bucket.take(weight)
        taken.append((clock, weight))
    for start, _ in taken:
        within = sum(weight for at, weight in taken if start <= at < start + window)
        assert within <= budget + 1e-6


def test_a_request_heavier_than_the_bucket_waits_until_it_is_full_and_leaves_a_debt():
    bucket = Bucket(20.0, 10.0, 0.0)
    assert bucket.wait_s(50.0, 0.0) == 0.0
    bucket.take(50.0)
    assert bucket.wait_s(1.0, 0.0) == pytest.approx(41.0)
    assert bucket.wait_s(50.0, 40.0) == pytest.approx(10.0)


async def test_requests_keep_within_the_share_of_the_budget(ears):
    loop, times = asyncio.get_running_loop(), []

    async def handle(_: web.Request) -> web.Response:
        times.append(loop.time())
        return web.Response()

    async with site(handle) as url:
        # Half of 80 per 0.4 s: at once 20 in weight, then 20 every 0.4 s.
        feed = feed_of(url, ears, weight=80, window_s=0.4)
        for number in range(8):
            feed.fetch(fetch(f"{number}", weight=5))
        async with running(feed.run()):
            await eventually(lambda: len(ears.heard) == 8)
    assert times[-1] - times[0] >= 0.35


@pytest.mark.parametrize(
    ("used", "held"), [(100, False), (1900, False), (2000, True), (10**8, True)]
)
async def test_the_venues_own_count_near_its_limit_holds_us_back(ears, used, held):
    async def handle(_: web.Request) -> web.Response:
        return web.Response(headers={"X-Mbx-Used-Weight-1m": f"{used}", "X-Other": "5"})

    async with site(handle) as url:
        feed = feed_of(url, ears, weight=2400, window_s=60)
        feed.fetch(fetch("key"))
        async with running(feed.run()):
            await eventually(lambda: ears.heard)
            wait = feed._bucket.wait_s(1, feed._clock())
    assert feed.used_weight == used
    assert (wait > 1) == held
    assert wait <= 61  # a window forgets


@pytest.mark.parametrize("text", ["", "many", "-1", "1" * 400, "12,5"])
async def test_a_count_that_is_no_number_is_ignored(ears, text):
    async def handle(_: web.Request) -> web.Response:
        return web.Response(headers={"x-mbx-used-weight-1m": text})

    async with site(handle) as url:
        feed = feed_of(url, ears)
        feed.fetch(fetch("key"))
        async with running(feed.run()):
            await eventually(lambda: ears.heard)
    assert feed.used_weight is None


# --------------------------------------------------------------------------------- pauses


@pytest.mark.parametrize(
    ("status", "retry_after", "pause_s"),
    [
        (429, "7", 7),
        (429, None, 10),
        (429, "99999999", 3600),
        (429, "tomorrow", 10),
        (418, "30", 120),
        (418, "3000", 3000),
        (418, "99999999", 3 * 86400),
        (418, None, 120),
        (403, None, 600),
        (403, "900", 900),
        (451, None, 1800),
    ],
)
async def test_a_venue_that_says_stop_is_left_alone_and_requests_stay_queued(
    ears, status, retry_after, pause_s
):
    async def handle(_: web.Request) -> web.Response:
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return web.Response(status=status, headers=headers)

    async with site(handle) as url:
        feed = feed_of(url, ears, in_flight=1, now=lambda: 5 * NS)
        feed.fetch(fetch("first"))
        feed.fetch(fetch("second"))
        async with running(feed.run()):
            await eventually(lambda: ears.heard)
            feed.fetch(fetch("second", "/later"))
            feed.fetch(fetch("third"))
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(feed) == 2
    assert replies(ears)["first"][0] == status
    assert feed.paused_until == (5 + pause_s) * NS
    assert feed.requests == 1
    assert feed.pauses[status] == 1
    assert feed.last_reason == str(status)


async def test_after_the_pause_what_is_queued_is_asked(ears):
    loop, times = asyncio.get_running_loop(), []

    async def handle(_: web.Request) -> web.Response:
        times.append(loop.time())
        first = len(times) == 1
        return web.Response(status=429 if first else 200, headers={"Retry-After": "0.05"})

    async with site(handle) as url:
        feed = feed_of(url, ears, in_flight=1)
        for number in range(4):
            feed.fetch(fetch(f"{number}"))
        async with running(feed.run()):
            await eventually(lambda: len(ears.heard) == 4)
    assert times[1] - times[0] >= 0.045
    assert [status for status, _ in replies(ears).values()] == [429, 200, 200, 200]


async def test_pauses_grow_while_the_venue_says_stop_and_a_success_forgets(ears):
    statuses = iter([429, 429, 429, 200, 429])
    ends = []

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=next(statuses))

    async with site(handle) as url:
        feed = feed_of(url, ears, now=lambda: 0, throttled_s=0.005)
        async with running(feed.run()):
            for number in range(5):
                feed.fetch(fetch(f"{number}"))
                await eventually(lambda number=number: f"{number}" in replies(ears))
                ends.append(feed.paused_until)
    assert [end / 5e6 for end in ends] == pytest.approx([1, 2, 4, 4, 1])


async def test_answers_of_one_incident_do_not_add_up(ears):
    go_on = asyncio.Event()

    async def handle(_: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response(status=429)

    async with site(handle) as url:
        feed = feed_of(url, ears, now=lambda: 0)
        for number in range(4):
            feed.fetch(fetch(f"{number}"))
        async with running(feed.run()):
            await eventually(lambda: feed.requests == 4)
            go_on.set()
            await eventually(lambda: len(ears.heard) == 4)
    assert feed.paused_until < 21 * NS
    assert feed._throttles == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0.5 ", 0.5),
        (formatdate(1_000_030, usegmt=True), 30.0),
        (formatdate(999_000, usegmt=True), 0.0),
        ("", None),
        ("-5", None),
        ("inf", None),
        ("9" * 400, None),
        ("Wed, 99 Oct 99999 99:28:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(text, seconds):
    assert retry_after_s(text, 1_000_000 * NS) == seconds


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_retry_after_takes_any_text(text):
    seconds = retry_after_s(text, 0)
    assert seconds is None or seconds >= 0


# --------------------------------------------------------------------------- cancellation


@pytest.mark.parametrize("stage", ["idle", "asking", "paused"])
async def test_cancelling_leaves_no_task_and_no_connection(ears, stage):
    before, go_on = asyncio.all_tasks(), asyncio.Event()

    async def handle(_: web.Request) -> web.Response:
        if stage == "asking":
            await go_on.wait()
        return web.Response(status=429)

    async with site(handle) as url:
        feed = feed_of(url, ears)
        task = asyncio.create_task(feed.run())
        if stage != "idle":
            feed.fetch(fetch("a"))
            await eventually(lambda: feed.requests)
        if stage == "paused":
            await eventually(lambda: ears.heard)
            feed.fetch(fetch("b"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
    await eventually(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})


async def test_a_full_inbox_stops_the_asking():
    async def handle(_: web.Request) -> web.Response:
        return web.Response()

    full = Ears(limit=1)
    async with site(handle) as url:
        feed = feed_of(url, full, in_flight=2)
        for number in range(10):
            feed.fetch(fetch(f"{number}"))
        async with running(feed.run()):
            await eventually(lambda: full.inbox.waits == 2)
            assert feed.requests == 3
            async with running(full.listen()):
                await eventually(lambda: len(full.heard) == 10)


async def test_a_mistake_of_ours_is_raised_and_not_taken_for_a_network_error(ears):
    async def handle(_: web.Request) -> web.Response:
        return web.Response()

    async with site(handle) as url:
        feed = feed_of(url, ears, now=lambda: 1 // 0)
        feed.fetch(fetch("key"))
        with pytest.raises(ExceptionGroup) as raised:
            await asyncio.wait_for(feed.run(), 60)
    assert raised.value.subgroup(ZeroDivisionError)


def test_the_patience_is_shorter_than_the_codecs():
    assert DEFAULT_TIMING.timeout_s < REPLY_PATIENCE_S
