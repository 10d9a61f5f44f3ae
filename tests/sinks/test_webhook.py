import asyncio
import contextlib
import json
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from monitor.config import ConfigError, WebhookConfig
from monitor.sinks import webhook
from monitor.sinks.envelope import encode
from monitor.sinks.webhook import REASONS, WebhookSink, webhook_sinks
from tests.builders import config
from tests.sinks.builders import alert, depth, eventually

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhook.md"
KEY = "correct horse"


def webhook_config(*urls, **changes) -> WebhookConfig:
    values = {"enabled": True, "urls": list(urls), "secret": KEY, "timeout_s": 30.0, "attempts": 4}
    return msgspec.structs.replace(config().webhook, **(values | changes))


class Receiver:
    """A web server on loopback that answers as it is told and keeps what it was sent."""

    def __init__(self, *answers):
        self.requests = []
        self.answers = list(answers)
        self.url = ""

    async def answer(self, request):
        body = await request.read()
        self.requests.append((time.monotonic(), dict(request.headers), body))
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "silence":
            await asyncio.Event().wait()
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        return web.Response(status=status, headers=headers)

    @property
    def seqs(self):
        return [json.loads(body)["seq"] for _, _, body in self.requests]

    @property
    def gaps_s(self):
        times = [at for at, _, _ in self.requests]
        return [later - sooner for sooner, later in pairwise(times)]


@pytest.fixture
async def receivers():
    runners = []

    async def make(*answers):
        receiver = Receiver(*answers)
        app = web.Application()
        app.router.add_post("/hook/token", receiver.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook/token"
        return receiver

    yield make
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def sinks(monkeypatch):
    """Makes running sinks that note what they gave up, and stops them at the end."""
    monkeypatch.setattr(webhook, "BACKOFF_FIRST_S", 0.01)
    made = {}

    def make(url, **changes):
        letters = []

        def dead(given_up, shown, reason):
            letters.append((given_up.seq, shown, reason))

        sink = WebhookSink(webhook_config(url, **changes), url, "run1", dead)
        sink.letters = letters
        made[sink] = asyncio.create_task(sink.run())
        return sink

    async def stop(sink, deadline_s):
        task = made.pop(sink)
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await sink.close(deadline_s)

    make.stop = stop
    yield make
    for sink in list(made):
        await stop(sink, 0.05)


# ----------------------------------------------------------------------------------- request


async def test_an_alert_is_posted_with_the_envelope_and_a_signature_that_verifies(receivers, sinks):
    receiver = await receivers()
    sink = sinks(receiver.url)
    sink.put(alert(7))
    await eventually(lambda: sink.sent == 1)
    ((_, headers, body),) = receiver.requests
    assert body == encode(alert(7), "run1")
    assert headers["Content-Type"] == "application/json"
    assert headers["Cascade-Delivery"] == "run1-alerts-BTC-7"
    # The receiver's side is the documented example.
    example = {}
    exec(re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1], example)  # noqa: S102
    genuine = example["genuine"]
    assert genuine(KEY, headers, body)
    assert not genuine("wrong", headers, body)
    assert not genuine(KEY, headers, body + b" ")
    assert not genuine(KEY, headers | {"Cascade-Timestamp": str(int(time.time()) + 1)}, body)
    assert not genuine(KEY, headers | {"Cascade-Timestamp": "1"}, body)


async def test_without_a_secret_there_is_no_signature(receivers, sinks):
    receiver = await receivers()
    sinks(receiver.url, secret="").put(alert())
    await eventually(lambda: receiver.requests)
    assert "Cascade-Signature" not in receiver.requests[0][1]


async def test_only_alerts_that_are_severe_enough_and_not_silent_are_posted(receivers, sinks):
    receiver = await receivers()
    sink = sinks(receiver.url, severity_min="warning")
    sink.put(depth())
    sink.put(alert(1, severity="info"))
    sink.put(alert(2, severity="critical", silent=True))
    sink.put(alert(3, severity="warning", id="BTC:down:2"))
    sink.put(alert(4, severity="critical"))
    await eventually(lambda: sink.sent == 2)
    assert receiver.seqs == [3, 4]
    assert sink.outbox.discarded_unintentional == 0


async def test_who_was_told_of_a_warning_is_told_when_it_is_over(receivers, sinks):
    receiver = await receivers()
    sink = sinks(receiver.url)
    sink.put(alert(1, severity="info", action="raised"))
    sink.put(alert(2, severity="warning", action="changed"))
    sink.put(alert(3, severity="info", action="changed"))
    sink.put(alert(4, severity="info", action="changed", id="ETH:up:1"))
    sink.put(alert(5, severity="info", action="cleared"))
    sink.put(alert(6, severity="info", action="changed"))
    await eventually(lambda: sink.sent == 3)
    assert receiver.seqs == [2, 3, 5]
    for number in range(2 * webhook.EPISODES_MAX):
        sink.put(alert(id=str(number)))
    assert len(sink._told) == webhook.EPISODES_MAX


# --------------------------------------------------------------------------------- repetition


async def test_it_is_tried_again_until_it_is_taken_under_the_same_delivery_id(receivers, sinks):
    receiver = await receivers(500, "silence", 429)
    # A busy machine may take longer than that over any of the answers.
    sink = sinks(receiver.url, timeout_s=1.0, attempts=20)
    sink.put(alert())
    await eventually(lambda: sink.sent == 1)
    assert len({headers["Cascade-Delivery"] for _, headers, _ in receiver.requests}) == 1
    counted = {reason for reason, number in sink.errors.items() if number}
    assert {"timeout"} <= counted <= {"server_error", "timeout", "throttled"}
    assert sum(sink.errors.values()) >= 3
    assert (sink.connected, sink.dead, sink.letters) == (True, 0, [])


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "client_error"), (410, "client_error"), (302, "redirect")]
)
async def test_what_will_be_refused_again_is_given_up_at_once(receivers, sinks, status, reason):
    elsewhere = await receivers()
    receiver = await receivers((status, {"Location": elsewhere.url}))
    sink = sinks(receiver.url)
    sink.put(alert(1))
    sink.put(alert(2))
    await eventually(lambda: sink.sent == 1)
    assert receiver.seqs == [1, 2]
    assert sink.letters == [(1, receiver.url.removesuffix("/hook/token"), reason)]
    assert sink.errors[reason] == 1
    assert elsewhere.requests == []


async def test_after_the_last_attempt_there_is_a_dead_letter_without_the_secret_address(
    receivers, sinks, caplog
):
    receiver = await receivers(*[503] * 4)
    sink = sinks(receiver.url)
    sink.put(alert(9))
    await eventually(lambda: sink.dead == 1)
    assert len(receiver.requests) == 4
    assert sink.letters == [(9, receiver.url.removesuffix("/hook/token"), "server_error")]
    assert (sink.connected, sink.outbox.discarded_unintentional) == (False, 1)
    assert "token" not in "".join(str(vars(record)) for record in caplog.records)


async def test_a_longer_wait_is_granted_when_asked_for(receivers, sinks):
    receiver = await receivers((429, {"Retry-After": "1"}))
    sink = sinks(receiver.url)
    sink.put(alert())
    await eventually(lambda: sink.sent == 1)
    assert receiver.gaps_s[0] >= 1.0
    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert 20 < webhook._retry_after_s(format_datetime(soon, usegmt=True)) <= 30
    assert webhook._retry_after_s("86400") == webhook.RETRY_AFTER_MAX_S
    for nonsense in ("", "soon", "-5", "nan", "Mon, 01 Jan 1990 00:00:00 GMT"):
        assert webhook._retry_after_s(nonsense) == 0.0


def test_waits_double_up_to_a_limit_and_are_jittered():
    waits = {attempt: [webhook._backoff_s(attempt) for _ in range(50)] for attempt in (1, 4, 99)}
    for attempt, most_s in ((1, 1.0), (4, 8.0), (99, 60.0)):
        assert all(most_s / 2 <= wait <= most_s for wait in waits[attempt])
        assert len(set(waits[attempt])) > 1


# -------------------------------------------------------------------------------- independence


async def test_one_address_gets_its_alerts_in_order_although_some_are_tried_again(receivers, sinks):
    receiver = await receivers(500, 200, 503, 500)
    sink = sinks(receiver.url)
    for seq in range(1, 6):
        sink.put(alert(seq))
    await eventually(lambda: sink.sent == 5)
    assert list(dict.fromkeys(receiver.seqs)) == [1, 2, 3, 4, 5]
    assert receiver.seqs == sorted(receiver.seqs)


async def test_a_slow_or_dead_receiver_harms_no_other(receivers, sinks):
    slow, good = await receivers(*["silence"] * 50), await receivers()
    hanging, dead, fine = (
        sinks(url, timeout_s=600.0) for url in (slow.url, "http://127.0.0.1:1/", good.url)
    )
    for seq in range(1, 21):
        for sink in (hanging, dead, fine):
            sink.put(alert(seq))
    await eventually(lambda: fine.sent == 20)
    await eventually(lambda: dead.errors["connection"])
    assert (len(slow.requests), hanging.sent, dead.sent) == (1, 0, 0)


async def test_a_full_queue_drops_the_oldest_and_counts_them(receivers, sinks):
    receiver = await receivers()
    sink = sinks(receiver.url, queue_length=3)
    for seq in range(1, 11):
        sink.put(alert(seq))
    await eventually(lambda: sink.sent == 3)
    assert receiver.seqs == [8, 9, 10]
    assert sink.outbox.discarded_unintentional == 7


async def test_a_stop_delivers_what_waits_and_makes_dead_letters_of_the_rest(receivers, sinks):
    receiver, hanging = await receivers(), await receivers(*["silence"] * 50)
    good, bad = sinks(receiver.url), sinks(hanging.url)
    for sink in (good, bad):
        for seq in (1, 2):
            sink.put(alert(seq))
    await eventually(lambda: hanging.requests)
    await sinks.stop(good, 30.0)
    await sinks.stop(bad, 0.1)
    assert list(dict.fromkeys(receiver.seqs)) == [1, 2]
    assert [(seq, reason) for seq, _, reason in bad.letters] == [(1, "shutdown"), (2, "shutdown")]


# ------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    "url", ["", "example.org/hush", "ftp://example.org/hush", "file:///hush", "http:///hush",
            "https://example.org:99999/hush", "https://example.org/hush hush"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_and_not_quoted(url):
    with pytest.raises(ConfigError, match=r"webhook\.urls, number 2") as error:
        webhook_sinks(webhook_config("https://example.org/a", url), "run1", lambda *_: None)
    assert "hush" not in str(error.value)


def test_no_address_or_one_that_stands_twice_is_refused():
    for urls in ([], ["https://example.org/a"] * 2):
        with pytest.raises(ConfigError, match=r"webhook\.urls"):
            webhook_sinks(webhook_config(*urls), "run1", lambda *_: None)


def test_each_address_is_a_sink_of_its_own_by_its_place():
    urls = ("https://example.org/a", "http://u:p@127.0.0.1/b?token=x")
    sinks = webhook_sinks(webhook_config(*urls), "run1", lambda *_: None)
    assert list(sinks) == ["webhook.1", "webhook.2"]
    assert all(set(sink.errors) == set(REASONS) for sink in sinks.values())


def test_every_reason_and_header_is_documented():
    words = set(re.findall(r"`([\w-]+)`", DOCUMENT.read_text()))
    assert set(REASONS) | {"Cascade-Delivery", "Cascade-Timestamp", "Cascade-Signature"} <= words
