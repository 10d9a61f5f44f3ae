"""The OpenAPI description of the JSON API, made from the very types that are sent."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from monitor import __version__, events
from monitor.sinks import api, envelope
from monitor.sinks.status import Health, Status

_PREFIX: Final = "#/components/schemas/"
_Json = dict[str, Any]

MESSAGES: Final[dict[str, type]] = {
    "depth": events.Depth,
    "heatmap": events.Heatmap,
    "heatmap:log": events.HeatmapRow,
    "risk": events.Risk,
    "liquidations": events.Liquidation,
    "alerts": events.Alert,
}
"""Kinds of messages the API answers with, and what is in them."""


def described(*, token: bool) -> _Json:
    """The description; `token` says whether one is asked for."""
    types = [
        *MESSAGES.values(), api.AssetInfo, api.StressAnswer, api.Scorecards, api.Problem,
        Health, Status,
    ]  # fmt: skip
    refs, components = msgspec.json.schema_components(types, ref_template=_PREFIX + "{name}")
    named = {kind: ref["$ref"] for kind, ref in zip(types, refs, strict=True)}
    for body, times in envelope.TIMES.items():
        if body in named:
            _in_microseconds(components[named[body].removeprefix(_PREFIX)], times)
    for kind, of in MESSAGES.items():
        components[_message_name(kind)] = _message(kind, named[of])
    paths = _paths(named)
    if token:
        for path in paths.values():
            path["get"]["security"] = [{"bearer": []}]
            path["get"]["responses"]["401"] = _answer("The token is missing or wrong.", _problem())
    described: _Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "cascade-monitor",
            "version": __version__,
            "summary": "Early warning of liquidation cascades: what the daemon knows, read only.",
            "description": "Money is USD, prices quote per base unit, quantities base units, "
            "ratios fractions (0.01 is one percent), `_us` microseconds since 1970, `_s` seconds. "
            "null is unknown. What is stale is answered with 503, never with an old value.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }
    if token:
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"}
        }
    return described


def _paths(named: dict[type, str]) -> _Json:
    asset: _Json = {
        "name": "asset", "in": "path", "required": True, "description": "Such as BTC.",
        "schema": {"type": "string", "minLength": 1},
    }  # fmt: skip
    venue = _query("venue", {"type": "string"}, "One venue only; all together without it.")
    minutes = _query(
        "minutes",
        {"type": "number", "exclusiveMinimum": 0, "maximum": api.MINUTES_MAX,
         "default": api.MINUTES_DEFAULT},
        "How far back.",
    )  # fmt: skip
    limit = _query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": api.ALERTS_MAX,
         "default": api.ALERTS_DEFAULT},
        "At most so many, newest first.",
    )  # fmt: skip
    shock = _query(
        "shock",
        {"type": "number", "minimum": -api.SHOCK_MAX, "maximum": api.SHOCK_MAX,
         "not": {"exclusiveMinimum": -1e-6, "exclusiveMaximum": 1e-6}},
        "The move of all books, signed: -0.03 is a fall by 3 %.",
    ) | {"required": True}  # fmt: skip
    within = _query(
        "within_s",
        {"type": "number", "minimum": 0, "maximum": api.WITHIN_MAX},
        "How soon after the move, in seconds: the mark has followed it in part only. Without it "
        "the mark has followed entirely, which is never less than what comes.",
    )
    share = _query(
        "spot_share",
        {"type": "number", "minimum": 0, "maximum": 1},
        "With within_s: share of the move that spot makes as well. Without it that of the last "
        "minute's move, and 1 where that is not known.",
    )
    assets: _Json = {
        "type": "object", "additionalProperties": {"$ref": named[api.AssetInfo]}
    }  # fmt: skip
    state = "/api/v1/assets/{asset}"
    return {
        "/api/v1/assets": _get("assets", "The assets and what is known of each.", [], assets),
        f"{state}/heatmap": _get(
            "heatmap", "The liquidation map.", [asset, venue], _of("heatmap"), unknown=True
        ),
        f"{state}/depth": _get(
            "depth", "What the order books would absorb.", [asset], _of("depth"), unknown=True
        ),
        f"{state}/risk": _get("risk", "The risk, down and up.", [asset], _of("risk"), unknown=True),
        f"{state}/heatmap/log": _get(
            "heatmapLog",
            "Rows of the picture of price and time, oldest first: all of an hour or less, "
            "one a minute of more.",
            [asset, venue, minutes],
            _entries("heatmap:log", asset={"type": "string"}, venue={"type": "string"}),
        ),
        f"{state}/liquidations": _get(
            "liquidations",
            "Realised liquidations, oldest first.",
            [asset, minutes],
            _entries("liquidations", asset={"type": "string"}),
        ),
        f"{state}/stress": _get(
            "stress",
            "What a move of all books would set off.",
            [asset, shock, within, share],
            {"$ref": named[api.StressAnswer]},
            unknown=True,
        ),
        "/api/v1/alerts": _get("alerts", "Alerts, newest first.", [limit], _entries("alerts")),
        "/api/v1/scorecard": _get(
            "scorecard", "The track record.", [], {"$ref": named[api.Scorecards]}
        ),
        "/api/v1/status": _get(
            "status", "Feeds, books, queues and sinks.", [], {"$ref": named[Status]}
        ),
        "/api/v1/openapi.json": _get("openapi", "This description.", [], {"type": "object"}),
    }


def _get(
    name: str, summary: str, parameters: Sequence[_Json], schema: _Json, *, unknown: bool = False
) -> _Json:
    responses = {"200": _answer("What is known.", schema)}
    if any(parameter["in"] == "query" for parameter in parameters):
        responses["400"] = _answer("A parameter makes no sense.", _problem())
    if any(parameter["in"] == "path" for parameter in parameters):
        responses["404"] = _answer("No such asset or venue.", _problem())
    if unknown:
        responses["503"] = _answer("Not known now.", _problem())
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": list(parameters),
            "responses": responses,
        }
    }


def _query(name: str, schema: _Json, text: str) -> _Json:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _answer(text: str, schema: _Json) -> _Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _problem() -> _Json:
    return {"$ref": f"{_PREFIX}Problem"}


def _message_name(kind: str) -> str:
    return "Message." + kind.replace(":", ".")


def _of(kind: str) -> _Json:
    return {"$ref": _PREFIX + _message_name(kind)}


def _entries(kind: str, **fields: _Json) -> _Json:
    properties = fields | {
        "lacks": {
            "type": "string",
            "description": "Why it does not reach as far back as asked; empty if it does.",
        },
        "entries": {"type": "array", "items": _of(kind)},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _message(kind: str, of: str) -> _Json:
    """The envelope around one kind."""
    whole: _Json = msgspec.json.schema_components([envelope.Envelope])[1]["Envelope"]
    own: _Json = {
        "title": _message_name(kind),
        "properties": whole["properties"] | {"kind": {"const": kind}, "data": {"$ref": of}},
    }
    return whole | own


def _in_microseconds(schema: _Json, times: Sequence[str]) -> None:
    schema["properties"] = {
        f"{name}_us" if name in times else name: kind for name, kind in schema["properties"].items()
    }
    schema["required"] = [f"{n}_us" if n in times else n for n in schema["required"]]
