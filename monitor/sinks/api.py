"""The read-only JSON API: what is known now, a day of history, what-if and the track record.

Messages are in the envelope of every other sink. What is stale is not found rather than shown:
unknown never looks like safe. `openapi` describes it; `docs/api.md` tells how to use it.
"""

from collections.abc import Awaitable, Callable, Mapping
from math import isfinite
from typing import Final, Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from monitor.core.asset import Asset
from monitor.core.cascade.stress import Missing, Stress
from monitor.core.forecast.alarms import AlarmScore
from monitor.core.forecast.scorecard import Skill
from monitor.core.forecast.unseen import WHY
from monitor.events import Ungraded
from monitor.sinks.envelope import encode
from monitor.sinks.history import History, joined
from monitor.sinks.metrics import Sources, View

KINDS: Final = ("depth", "heatmap", "risk")
"""States of an asset that can be asked for by their name."""

MINUTES_MAX: Final = 1440.0
MINUTES_DEFAULT: Final = 60.0
ALERTS_MAX: Final = 500
ALERTS_DEFAULT: Final = 50
SHOCK_MAX: Final = 0.3
"""Curves are known to 30 % (`monitor.core.cascade.curves`)."""

WITHIN_MAX: Final = 3600.0
"""Seconds; a mark has followed entirely long before."""

COMPRESSED_FROM: Final = 4096
"""Longer answers are compressed where the client can."""


class AssetInfo(Struct, frozen=True):
    """An asset: its instruments, its venues and the states that are known now."""

    instruments: list[str]
    venues: list[str]
    states: list[Literal["depth", "heatmap", "risk"]]


class StressAnswer(Struct, frozen=True):
    """A what-if on what was known at `at_us`, solved on the daemon's own curves."""

    run: str
    at_us: int
    asset: str
    stress: Stress
    solved_on: Literal["curves"] = "curves"


class Scorecards(Struct, frozen=True):
    """The track record: of the forecasts by horizon, and of the alarms.

    `rivals` is what the alarms of the baseline without a map would have been worth; `reasons` says
    in words why forecasts could not be graded, where some could not.
    """

    run: str
    at_us: int
    skills: list[Skill]
    alarms: list[AlarmScore]
    rivals: list[AlarmScore]
    reasons: dict[Ungraded, str]


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why there is no answer. `missing` is what is not known, by venue, in a what-if."""

    error: str
    missing: list[Missing] = []


class QuestionError(ValueError):
    """A parameter makes no sense; the message says which."""


class Api:
    """Handlers of everything below ``/api/v1``, but for the websocket and the description."""

    def __init__(self, sources: Sources, history: History) -> None:
        self._sources = sources
        self._history = history

    def routes(self) -> Mapping[str, Callable[[web.Request], Awaitable[web.Response]]]:
        """Handlers by path."""
        one = "/api/v1/assets/{asset}"
        return {
            "/api/v1/assets": self._assets,
            f"{one}/heatmap/log": self._log,
            f"{one}/liquidations": self._liquidations,
            f"{one}/stress": self._stress,
            f"{one}/{{kind}}": self._state,
            "/api/v1/alerts": self._alerts,
            "/api/v1/scorecard": self._scorecard,
        }

    async def _assets(self, _request: web.Request) -> web.Response:
        view = View(self._sources)
        return answer(
            {
                name: AssetInfo(
                    instruments=[state.spec.name for state in asset.instruments],
                    venues=_venues(asset),
                    states=[kind for kind in KINDS if view.message(kind, name)],
                )
                for name, asset in self._sources.pipeline.engine.assets.items()
            }
        )

    async def _state(self, request: web.Request) -> web.Response:
        name, asset = self._known(request)
        kind, venue = request.match_info["kind"], self._venue(request, asset)
        if kind not in KINDS:
            raise web.HTTPNotFound(reason=f"no such state; known are {', '.join(KINDS)}")
        if venue and kind != "heatmap":
            raise QuestionError(f"{kind} is of all venues together; it lists them itself")
        message = View(self._sources).message(kind, name, venue)
        if message is None:
            return answer(Problem(f"{kind} of {name} is not known now"), 503)
        return sent(request, encode(message, self._sources.identity.run))

    async def _log(self, request: web.Request) -> web.Response:
        name, asset = self._known(request)
        venue, minutes = self._venue(request, asset), _minutes(request)
        rows = self._history.rows(name, venue, minutes)
        lacks = self._history.picture_lacks(name, venue, minutes)
        return sent(request, joined(rows, asset=name, venue=venue, lacks=lacks))

    async def _liquidations(self, request: web.Request) -> web.Response:
        name, _ = self._known(request)
        minutes = _minutes(request)
        found = self._history.liquidations(name, minutes)
        return sent(request, joined(found, asset=name, lacks=self._history.lacks(minutes)))

    async def _alerts(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", ALERTS_DEFAULT)
        if not 1 <= limit <= ALERTS_MAX or limit != int(limit):
            raise QuestionError(f"limit: a whole number from 1 to {ALERTS_MAX}")
        found = self._history.alerts(int(limit))
        return sent(request, joined(found, lacks=self._history.lacks(MINUTES_MAX)))

    async def _stress(self, request: web.Request) -> web.Response:
        name, asset = self._known(request)
        shock = _number(request, "shock", None)
        if not 1e-6 <= abs(shock) <= SHOCK_MAX:
            raise QuestionError(f"shock: a ratio from -{SHOCK_MAX} to {SHOCK_MAX}, and not 0")
        within_s = _optional(request, "within_s", WITHIN_MAX)
        spot_share = _optional(request, "spot_share", 1.0)
        if spot_share is not None and within_s is None:
            raise QuestionError("spot_share: makes no difference without within_s")
        at = self._sources.now()
        found = asset.stress(at, shock, within_s=within_s, spot_share=spot_share)
        if found.mark is None:
            problem = Problem(f"nothing is known of {name} to move", found.missing)
            return answer(problem, 503)
        return answer(StressAnswer(self._sources.identity.run, at // 1000, name, found))

    async def _scorecard(self, _request: web.Request) -> web.Response:
        skills, alarms, rivals = [], [], []
        for asset in self._sources.pipeline.engine.assets.values():
            for outlook in asset.outlooks.values():
                skills += [card.skill() for card in outlook.cards.values()]
                alarms.append(outlook.alarms.score())
                rivals.append(outlook.rival.score())
        at_us = self._sources.now() // 1000
        met = {why for skill in skills for why, count in skill.ungraded.items() if count}
        reasons = {why: text for why, text in WHY.items() if why in met}
        run = self._sources.identity.run
        return answer(Scorecards(run, at_us, skills, alarms, rivals, reasons))

    def _known(self, request: web.Request) -> tuple[str, Asset]:
        name = request.match_info["asset"]
        asset = self._sources.pipeline.engine.assets.get(name)
        if asset is None:
            raise web.HTTPNotFound(reason="no such asset; /api/v1/assets lists them")
        return name, asset

    @staticmethod
    def _venue(request: web.Request, asset: Asset) -> str:
        venue = request.query.get("venue", "")
        if venue and venue not in _venues(asset):
            raise web.HTTPNotFound(reason=f"no such venue; known are {', '.join(_venues(asset))}")
        return venue


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


def sent(request: web.Request, text: bytes) -> web.Response:
    """A JSON answer that is encoded already; compressed if it is long."""
    response = web.Response(body=text, content_type="application/json")
    if len(text) > COMPRESSED_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def _venues(asset: Asset) -> list[str]:
    return list(dict.fromkeys(state.spec.venue for state in asset.instruments))


def _minutes(request: web.Request) -> float:
    minutes = _number(request, "minutes", MINUTES_DEFAULT)
    if not 0 < minutes <= MINUTES_MAX:
        raise QuestionError(f"minutes: above 0 and at most {MINUTES_MAX:g}")
    return minutes


def _optional(request: web.Request, name: str, most: float) -> float | None:
    """A number from 0 to `most`, if it is asked with."""
    if name not in request.query:
        return None
    value = _number(request, name, None)
    if not 0.0 <= value <= most:
        raise QuestionError(f"{name}: from 0 to {most:g}")
    return value


def _number(request: web.Request, name: str, default: float | None) -> float:
    text = request.query.get(name)
    if text is None:
        if default is None:
            raise QuestionError(f"{name}: missing")
        return default
    try:
        value = float(text)
    except ValueError:
        raise QuestionError(f"{name}: {text[:40]!r} is not a number") from None
    if not isfinite(value):
        raise QuestionError(f"{name}: {text[:40]!r} is not a number")
    return value
