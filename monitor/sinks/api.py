"""The read-only JSON API: the newest messages, in the envelope of every other sink.

What is stale is not found rather than shown: unknown never looks like safe.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from monitor.sinks.envelope import encode
from monitor.sinks.metrics import Sources, View

KINDS: Final = ("depth", "heatmap")
"""States of an asset that can be asked for by their name."""


class Api:
    """Handlers of everything below ``/api/v1``."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get("/api/v1/assets", self._assets)
        app.router.add_get("/api/v1/assets/{asset}/{kind}", self._state)

    async def _assets(self, _request: web.Request) -> web.Response:
        assets = {
            name: {
                "instruments": [state.spec.name for state in asset.instruments],
                "states": [kind for kind in KINDS if View(self._sources).message(kind, name)],
            }
            for name, asset in self._sources.pipeline.engine.assets.items()
        }
        return answer(assets)

    async def _state(self, request: web.Request) -> web.Response:
        asset, kind = request.match_info["asset"], request.match_info["kind"]
        venue = request.query.get("venue", "")
        known = self._sources.pipeline.engine.assets.get(asset)
        if known is None or kind not in KINDS:
            return answer({"error": "no such asset or state", "states": list(KINDS)}, 404)
        if venue and venue not in {state.spec.venue for state in known.instruments}:
            return answer({"error": "no such venue", "asset": asset}, 404)
        message = View(self._sources).message(kind, asset, venue)
        if message is None:
            return answer({"error": "not known now", "asset": asset, "state": kind}, 503)
        text = encode(message, self._sources.identity.run)
        return web.Response(body=text, content_type="application/json")


def answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=msgspec.json.encode(body) + b"\n",
        status=status,
        headers=headers,
        content_type="application/json",
    )
