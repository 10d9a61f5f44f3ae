"""Workers that share the alerts: each alert goes to one of them, and to another if that one dies.

Start any number of these, each with a name of its own that it keeps over its restarts:

    python alerts_consumer_group.py redis://127.0.0.1:6379 worker-1

An alert is acknowledged once it has been handled, so a crash in between means that it is handled
twice, never that it is not. Needs only `redis`; with a cluster, `redis.RedisCluster`.
"""

import json
import sys
import time
from collections.abc import Iterator

from redis import Redis, exceptions

STREAM = "cascade:alerts"
GROUP = "paging"
IDLE_MS = 30_000  # an alert that a worker has had for so long is taken from it
BLOCK_MS = 2_000
COUNT = 10

Entry = tuple[bytes, dict[bytes, bytes]]


def handle(alert: dict) -> None:
    """Replace this by what you want done; the same alert has the same run, asset and seq."""
    print(alert["run"], alert["asset"], alert["seq"], alert["data"]["text"], flush=True)


def create_group(redis: Redis) -> None:
    """Begin with the oldest alert kept; a group that is there goes on where it stands."""
    try:
        redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except exceptions.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def abandoned(redis: Redis, worker: str) -> Iterator[Entry]:
    """What was delivered and never acknowledged, by us before a restart or by one that is gone."""
    start = b"0-0"
    while True:
        start, entries, _ = redis.xautoclaim(STREAM, GROUP, worker, IDLE_MS, start, count=COUNT)
        yield from entries
        if start == b"0-0":
            return


def fresh(redis: Redis, worker: str) -> Iterator[Entry]:
    """Alerts that no worker has had; waits a little for one."""
    found = redis.xreadgroup(GROUP, worker, {STREAM: ">"}, count=COUNT, block=BLOCK_MS)
    for _, entries in found or []:
        yield from entries


def work(redis: Redis, worker: str) -> None:
    """Handle alerts until Redis is lost."""
    create_group(redis)
    while True:
        for source in (abandoned, fresh):
            for id_, fields in source(redis, worker):
                message = json.loads(fields[b"m"])
                # The stream also has letters about alerts that a webhook did not take.
                if message["kind"] == "alerts" and not message["data"]["silent"]:
                    handle(message)
                redis.xack(STREAM, GROUP, id_)


def main(url: str, worker: str) -> None:
    """Handle alerts until interrupted."""
    redis = Redis.from_url(url, socket_timeout=5, protocol=2)
    while True:
        try:
            work(redis, worker)
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            print("Redis is away:", error, file=sys.stderr)
        except exceptions.ResponseError as error:
            # A server that has come back without its data: the group is made anew.
            if not str(error).startswith("NOGROUP"):
                raise
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
