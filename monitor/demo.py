"""The demonstration: the daemon, unchanged, against simulated venues over real sockets.

The venues live in a process of their own, as they do in reality, so that neither slows the other's
event loop; it ends when this process does, however that ends. Only addresses and the clock differ
from a live run: at a speed other than 1 the daemon's time runs as fast as the market's.
"""

import asyncio
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
from msgspec import Struct

from monitor import app, logs
from monitor.config import Config
from monitor.events import NS, Instrument
from monitor.pipeline import Pipeline
from monitor.sim.market import Market
from monitor.sim.scenarios import Name, scenario
from monitor.sim.serve import SimulatedVenues
from monitor.sinks.embedded import Embedded

STEP_MS = 100
"""Step of the market; the fastest order-book feeds are pushed every 100 ms."""

START_S = 60.0
"""How long the market may take to be populated."""


class Stage(Struct, frozen=True):
    """Where the simulated venues are and what time it is there.

    Attributes:
        urls: websocket and HTTP address of each venue.
        epoch_ns: the market's time at `began_s`, ns since the Unix epoch.
        began_s: when the market began to run, on the machine's monotonic clock.
    """

    urls: dict[str, tuple[str, str]]
    epoch_ns: int
    began_s: float


async def run(
    config: Config,
    specifications: list[Instrument],
    *,
    name: Name,
    seed: int,
    speed: float,
    duration_s: float | None,
    on_stop: Callable[[Pipeline], None],
) -> None:
    """Play a scenario until a signal comes, or for so many seconds of wall time.

    Raises:
        EmbeddedError: another demo runs in the same directory.
        RuntimeError: the simulated venues did not start.
    """
    print(f"Populating the simulated market ({name}, seed {seed}) ...", file=sys.stderr)  # noqa: T201
    if config.redis.enabled and config.redis.url == "embedded":
        # What an earlier demo left there is of another market.
        await Embedded(Path(config.state_directory) / "redis").clear()
    with _venues(name, seed, speed) as stage:
        print(f"Scenario {name}: {scenario(name, seed).about}", file=sys.stderr)  # noqa: T201
        await app.run(
            _at(config, stage),
            specifications,
            app.Shard(),
            now=_clock(stage, speed),
            speed=speed,
            duration_s=duration_s,
            resume=False,
            on_stop=on_stop,
        )


def own(config: Config, origins: Mapping[str, str]) -> Config:
    """The configuration with a state directory, and a belief of the map, of the demo's own.

    An invented crash must not be told where a real one is: nobody is called, and a Redis server or
    a broker is published to only if the environment says so, as in the compose file.
    """
    replace = msgspec.structs.replace
    redis, mqtt = config.redis, config.mqtt
    if origins["redis.url"] != "environment":
        redis = replace(redis, url="embedded")
    if origins["mqtt.enabled"] != "environment":
        mqtt = replace(mqtt, enabled=False)
    return replace(
        config,
        state_directory=str(Path(config.state_directory) / "demo"),
        engine=replace(config.engine, prior="simulated"),
        journal=replace(config.journal, directory="journal"),
        redis=redis,
        mqtt=mqtt,
        webhook=replace(config.webhook, enabled=False),
    )


def _at(config: Config, stage: Stage) -> Config:
    """The configuration with the simulated venues' addresses."""
    venues = {
        name: msgspec.structs.replace(
            venue, enabled=True, ws_url=stage.urls[name][0], http_url=stage.urls[name][1]
        )
        for name, venue in config.venues.items()
        if name in stage.urls
    }
    return msgspec.structs.replace(config, venues=venues)


def _clock(stage: Stage, speed: float) -> Callable[[], int]:
    """The market's time in ns."""

    def now() -> int:
        return stage.epoch_ns + int((time.monotonic() - stage.began_s) * speed * NS)

    return now


@contextmanager
def _venues(name: Name, seed: int, speed: float) -> Iterator[Stage]:
    """Run the venues in a child process; it notices our end by the pipe's."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(
        target=_serve, args=(theirs, name, seed, speed), name="simulated venues", daemon=True
    )
    child.start()
    theirs.close()
    try:
        if not ours.poll(START_S):
            raise RuntimeError(f"the simulated venues did not start within {START_S:.0f} s")
        try:
            yield msgspec.convert(ours.recv(), Stage)
        except EOFError as error:
            raise RuntimeError("the simulated venues ended at their start") from error
    finally:
        ours.close()
        child.join(5.0)
        child.kill()


def _serve(pipe: Connection, name: Name, seed: int, speed: float) -> None:
    """The child process: serve until the other end of the pipe is gone."""
    logs.configure("WARNING", "auto")
    with suppress(KeyboardInterrupt):  # Ctrl-C reaches the whole process group
        asyncio.run(_serving(pipe, name, seed, speed))


async def _serving(pipe: Connection, name: Name, seed: int, speed: float) -> None:
    gone = asyncio.Event()
    market = Market(scenario(name, seed), seed=seed, step_ms=STEP_MS, epoch_ns=time.time_ns())
    began_s = time.monotonic()
    async with SimulatedVenues(market, speed=speed) as venues:
        asyncio.get_running_loop().add_reader(pipe.fileno(), gone.set)
        pipe.send(msgspec.to_builtins(Stage(venues.urls, market.epoch_ns, began_s)))
        await gone.wait()
