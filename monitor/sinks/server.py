"""The daemon's own HTTP server: the page, its API, metrics and health, on the daemon's own loop.

It shares the loop on purpose: a wedged loop shows as a failed scrape and a failed probe. It only
reads; nothing that can be asked here changes anything, and no secret is known to it but its own
token.

``/healthz`` says whether the process makes progress, so that a supervisor knows when to restart it;
a dead venue or Redis is no reason to. ``/readyz`` says whether what it publishes can be used.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from monitor.config import HttpConfig
from monitor.sinks.api import Api, Problem, QuestionError, answer
from monitor.sinks.guard import DEFAULTS, HEADERS, PROBES, Guard
from monitor.sinks.history import History
from monitor.sinks.live import Live
from monitor.sinks.metrics import Sources, exposition
from monitor.sinks.openapi import described
from monitor.sinks.static import page_files, served
from monitor.sinks.status import Health, alive, readiness, ready, status_of

SHUTDOWN_S: Final = 2.0
"""How long requests that are being answered may take when the server stops."""

REJECTED_EVERY_S: Final = 10.0
REJECTED_KEPT: Final = 7
"""Refusals are noted every so often, and so many times: that makes the last minute."""

PAGES: Final = {
    "/metrics": "metrics for Prometheus",
    "/healthz": "whether the process makes progress",
    "/readyz": "whether what it publishes can be used",
    "/status": "everything in detail",
    "/api/v1/assets": "what is known of each asset; its maps below",
    "/api/v1/openapi.json": "description of the API",
}
"""What a person may open besides the page itself."""

_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class ServerError(OSError):
    """The server cannot listen; the message says where, why and what to change."""


class Server:
    """Serves the page and the figures of one daemon.

    Attributes:
        errors: requests that failed for a mistake of ours.
    """

    def __init__(
        self,
        config: HttpConfig,
        sources: Sources,
        registry: CollectorRegistry,
        live: Live | None = None,
        history: History | None = None,
    ) -> None:
        """`live` and `history` must be told every message to show any."""
        self.errors = 0
        self._config = config
        self._sources = sources
        self._registry = registry
        self._guarding = Guard(config)
        self._live = live if live is not None else Live(sources)
        self._runner: web.AppRunner | None = None
        self._rejected: deque[Counter[tuple[str, str]]] = deque(maxlen=REJECTED_KEPT)
        self._sampler: asyncio.Task[None] | None = None
        self._openapi = answer(described(token=bool(config.token))).body
        self._files = page_files()
        if history is None:
            history = History(sources.identity.run, sources.now)
        api = Api(sources, history)
        self._routes: dict[str, _Handler] = {
            **dict.fromkeys(self._files, self._file),
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/status": self._status,
            "/api/v1/status": self._status,
            "/api/v1/live": self._live_socket,
            "/api/v1/openapi.json": self._description,
            **api.routes(),
        }

    @property
    def port(self) -> int:
        """Where it listens, once started; tells which port 0 has become."""
        assert self._runner is not None, "not started"
        return int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        """The address of the page, for a person at this machine."""
        host = self._config.host
        reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{self.port}/"

    async def start(self) -> str:
        """Listen and return the URL.

        Raises:
            ServerError: the address is not ours, or taken.
        """
        assert self._runner is None, "started twice"
        app = web.Application(middlewares=[self._guard])
        for path, handler in self._routes.items():
            app.router.add_get(path, handler)
        app.on_response_prepare.append(_harden)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._config.host, self._config.port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            where = f"{self._config.host}:{self._config.port}"
            reason = getattr(error, "strerror", None) or str(error)
            raise ServerError(
                f"http.host, http.port: cannot listen on {where}: {reason}; "
                f"choose another port, or 0 for a free one, or http.enabled = false"
            ) from error
        self._runner = runner
        self._sampler = asyncio.create_task(self._sample(), name="http.sample")
        _log.info("http_started", extra={"fields": {"url": self.url}})
        return self.url

    async def stop(self) -> None:
        """Answer what is being asked, then close."""
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.wait([self._sampler])
            self._sampler = None
        if self._runner is not None:
            await self._live.close()
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _sample(self) -> None:
        """Note the refusals now and then, so that the status can tell recent ones."""
        while True:
            self._rejected.append(Counter(self._sources.pipeline.engine.rejected))
            await asyncio.sleep(REJECTED_EVERY_S)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuse whom or what we do not answer; turn our mistakes into a plain 500."""
        if request.method not in {"GET", "HEAD"}:
            body = {"error": "method not allowed", "allowed": ["GET", "HEAD"]}
            return answer(body, 405, {"Allow": "GET, HEAD"})
        if request.path not in PROBES:
            if refused := self._guarding.refuses_host(request):
                return answer(Problem(refused), 421)
            # The page's own files are public: they hold nothing, and ask for the token.
            if request.path not in self._files and not self._guarding.admits(request):
                problem = Problem("a bearer token is needed")
                return answer(problem, 401, {"WWW-Authenticate": "Bearer"})
        if request.match_info.http_exception is not None:
            return answer({"error": "not found", "pages": list(PAGES)}, 404)
        try:
            return await handler(request)
        except QuestionError as question:
            return answer(Problem(str(question)), 400)
        except web.HTTPNotFound as missing:
            return answer(Problem(missing.reason), 404)
        except Exception as error:  # noqa: BLE001  (a boundary: the daemon outlives a bad page)
            self.errors += 1
            fields = {"path": request.path}
            _log.error("http_failed", exc_info=error, extra={"fields": fields})
            return answer(Problem("internal error"), 500)

    async def _file(self, request: web.Request) -> web.Response:
        return served(request, self._files[request.path])

    async def _description(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type="application/json")

    async def _live_socket(self, request: web.Request) -> web.StreamResponse:
        if refused := self._guarding.refuses_origin(request):
            return answer(Problem(refused), 403)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return answer(Problem("this is a websocket"), 426, {"Upgrade": "websocket"})
        asset = request.query.get("asset")
        if asset is not None and asset not in self._sources.pipeline.engine.assets:
            return answer(Problem("no such asset; /api/v1/assets lists them"), 404)
        if self._live.is_full():
            return answer(Problem("too many clients"), 503)
        return await self._live.handle(request)

    async def _metrics(self, request: web.Request) -> web.Response:
        content_type, page = exposition(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        meter = self._sources.meter
        return _verdict(alive(meter.idle_s if meter else None))

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _verdict(ready(readiness(self._sources, self._config)))

    async def _status(self, _request: web.Request) -> web.Response:
        before = self._rejected[0] if self._rejected else None
        status = status_of(self._sources, self._config, before)
        return web.Response(
            body=msgspec.json.format(msgspec.json.encode(status)), content_type="application/json"
        )


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    for name, value in DEFAULTS.items():
        response.headers.setdefault(name, value)


def _verdict(health: Health) -> web.Response:
    return answer(health, 200 if health.ok else 503)
