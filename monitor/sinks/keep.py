"""Keeps the engine's state in Redis, so that a restart goes on where the last process stopped.

One binary string an asset, ``<prefix>:{ASSET}:state``. Nothing depends on it: a Redis that is away
costs the warm start and nothing else, and is counted.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Final, cast

from redis.exceptions import RedisClusterException, RedisError

from monitor.config import RedisConfig
from monitor.sinks.redis import Servers, reason_of

STATE_LIVES_S: Final = 72 * 3600
"""The engine refuses what is older."""

_log = logging.getLogger(__name__)


class Keeper:
    """Saves and loads states.

    Attributes:
        saved: states that Redis has taken.
        failed: attempts to save or load that failed.
    """

    def __init__(self, config: RedisConfig, run: str) -> None:
        """Connects to nothing yet.

        Raises:
            ConfigError: the URL is not one of a Redis server.
        """
        self.saved = 0
        self.failed = 0
        self._prefix = config.prefix
        self._patience_s = config.timeout_s
        self._servers = Servers(config.url, config.timeout_s, f"cascade-monitor-{run}-state")

    async def load(self, assets: Iterable[str]) -> Mapping[str, bytes]:
        """The states that were saved, of the assets that have one."""
        found: dict[str, bytes] = {}
        for asset in assets:
            key = self._key(asset)
            try:
                async with asyncio.timeout(self._patience_s):
                    data = cast("bytes | None", await (await self._servers.of(key)).get(key))
            except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
                self._failed("state_not_loaded", asset, error)
                break  # the others are not there either
            if data is not None:
                found[asset] = data
        return found

    async def save(self, asset: str, data: bytes) -> None:
        """Put a state away; a failure is counted, and the next save makes up for it."""
        key = self._key(asset)
        try:
            async with asyncio.timeout(self._patience_s):
                await (await self._servers.of(key)).set(key, data, ex=STATE_LIVES_S)
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            self._failed("state_not_saved", asset, error)
            return
        self.saved += 1

    async def close(self) -> None:
        """Disconnect."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._servers.close()
        except (RedisError, OSError):
            pass  # nothing is lost by a connection that does not close politely

    def _key(self, asset: str) -> str:
        return f"{self._prefix}:{{{asset}}}:state"

    def _failed(self, event: str, asset: str, error: Exception) -> None:
        self.failed += 1
        fields = {"asset": asset, "reason": reason_of(error), "error": str(error)[:200]}
        _log.warning(event, extra={"fields": fields})
