"""Keeps the engine's state in Redis, so that a restart goes on where the last process stopped.

One binary string an asset, ``<prefix>:{ASSET}:state``. Nothing depends on it: a Redis that is away
costs the warm start and nothing else, and is counted.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, cast

from redis.exceptions import RedisClusterException, RedisError

from monitor.config import RedisConfig
from monitor.sinks.redis import (
    PATIENCE_FACTOR,
    TRANSPORT,
    Reason,
    Servers,
    raise_if_cancelled,
    reason_of,
)

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
        self._patience_s = config.timeout_s * PATIENCE_FACTOR
        self._servers = Servers(config.url, config.timeout_s, f"cascade-monitor-{run}-state")

    async def load(self, assets: Iterable[str]) -> Mapping[str, bytes]:
        """The states that were saved, of the assets that have one."""
        found: dict[str, bytes] = {}
        for asset in assets:
            key = self._key(asset)
            try:
                async with asyncio.timeout(self._patience_s):
                    data = cast("bytes | None", await (await self._servers.of(key)).get(key))
            except Exception as error:  # noqa: BLE001  (a boundary: a warm start is all it costs)
                reason = await self._failed("state_not_loaded", asset, error)
                if reason in TRANSPORT and not self._servers.cluster:
                    break  # the others are on the same server
                continue
            finally:
                raise_if_cancelled()
            if data is not None:
                found[asset] = data
        return found

    async def save(self, asset: str, data: bytes) -> None:
        """Put a state away; a failure is counted, and the next save makes up for it."""
        key = self._key(asset)
        try:
            async with asyncio.timeout(self._patience_s):
                await (await self._servers.of(key)).set(key, data, ex=STATE_LIVES_S)
        except Exception as error:  # noqa: BLE001  (a boundary: as above)
            await self._failed("state_not_saved", asset, error)
            return
        finally:
            raise_if_cancelled()
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

    async def _failed(self, event: str, asset: str, error: Exception) -> Reason:
        self.failed += 1
        reason = reason_of(error)
        fields = {"asset": asset, "reason": reason, "error": str(error)[:200]}
        trace = error if reason == "unexpected" else None
        _log.warning(event, exc_info=trace, extra={"fields": fields})
        if reason in TRANSPORT:
            with suppress(RedisError, RedisClusterException, OSError):
                async with asyncio.timeout(self._patience_s):
                    await self._servers.forget()  # a cluster's slots may be elsewhere now
        return reason
