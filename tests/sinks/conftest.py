import asyncio
import contextlib
import os
import time

import pytest
from redis.asyncio import Redis

from monitor.sinks.embedded import Embedded, EmbeddedError, find_binary
from monitor.sinks.outbox import Outbox
from monitor.sinks.redis import RedisSink
from tests.sinks.builders import redis_config


@pytest.fixture(scope="session")
def valkey():
    """The server program; its absence fails in CI and skips elsewhere."""
    try:
        return find_binary()
    except EmbeddedError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
async def server(valkey, tmp_path):
    assert valkey
    embedded = Embedded(tmp_path / "redis")
    await embedded.start()
    yield embedded
    await embedded.stop(deadline_s=0.0)  # nobody wants the data


@pytest.fixture
async def client(server):
    async with Redis.from_url(server.url) as redis:
        yield redis


@pytest.fixture
async def sinks():
    """Makes running sinks, and stops them at the end."""
    made = []

    def make(url, *, run="run1", clock=time.monotonic, **changes):
        config = redis_config(url, **changes)
        outbox = Outbox(config.queue_length, config.state_ttl_s, clock)
        sink = RedisSink(config, run, outbox)
        made.append((sink, asyncio.create_task(sink.run())))
        return sink, outbox

    yield make
    for sink, task in made:
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await sink.close(0.05)
