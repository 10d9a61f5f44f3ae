"""The configuration as data: one frozen struct a section, units in the names.

`config/monitor.toml` is the only place with default values; a user's file and the environment lie
over it, key by key. This module parses and checks; it opens no file and reads no environment.
"""

import copy
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from math import inf
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from monitor.events import Instrument, Severity

Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=10, le=3_600_000)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]

ENVIRONMENT_PREFIX = "CASCADE_"

NOT_SETTINGS = frozenset(
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in ("CONFIG", "CONFIG_FILE", "REVISION", "SCENARIO", "SECRETS", "SHARED_DATA")
)
"""Variables of the command line, the image, the compose file and the tests (docs/operations.md)."""

TEXT_KEYS = frozenset({"username", "password", "secret", "token"})
"""Settings whose variable is taken literally: a password of digits is no number."""

_NAME = re.compile(r"[^\s\x00-\x1f\x7f]+")
"""A name of an instrument or asset: the fields of a journal's line end with a space."""

_S = TypeVar("_S", bound=Struct)


class ConfigError(Exception):
    """The configuration is wrong; the message says where, and what is allowed."""


class VenueConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One venue: where it is and which of its symbols to follow."""

    enabled: bool
    required: bool
    ws_url: str
    http_url: str
    book_depth: Count
    symbols_per_socket: Count
    instruments_interval_s: Seconds
    instruments: dict[str, str]
    open_interest_interval_s: Seconds | None = None


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How often the engine looks and publishes."""

    tick_interval_ms: Milliseconds
    publish_interval_ms: Milliseconds
    venue_interval_ms: Milliseconds
    heatmap_row_interval_ms: Milliseconds
    prior: Literal["published", "simulated"]
    status_interval_ms: Milliseconds


class JournalConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The recording of everything the daemon heard."""

    enabled: bool
    directory: str
    rotate_mb: Count
    keep_mb: Count
    flush_interval_ms: Milliseconds


class RedisConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where messages are published."""

    enabled: bool
    url: str
    prefix: str
    state_ttl_s: Seconds
    stream_length: Count
    heatmap_rows: Count
    save_interval_s: Seconds
    queue_length: Count
    timeout_s: Seconds


class MqttConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """An MQTT broker to publish to."""

    enabled: bool
    host: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    username: str
    password: str
    tls: bool
    ca_path: str
    certificate_path: str
    key_path: str
    client_id: Annotated[str, Meta(min_length=1)]
    prefix: str
    kinds: list[
        Literal["alerts", "depth", "forecasts", "heatmap", "liquidations", "risk", "status"]
    ]
    state_ttl_s: Seconds
    queue_length: Count
    timeout_s: Seconds
    home_assistant: bool
    home_assistant_prefix: str


class WebhookConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses that alerts are posted to."""

    enabled: bool
    urls: list[str]
    secret: str
    severity_min: Severity
    attempts: Count
    queue_length: Count
    timeout_s: Seconds


class HttpConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The daemon's own HTTP server."""

    enabled: bool
    host: str
    port: Port
    allowed_hosts: list[str]
    token: str
    ready_lag_s: Seconds
    ready_grace_s: Seconds


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]
    format: Literal["auto", "json", "text"]


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything."""

    state_directory: str
    queue_length: Count
    venues: dict[str, VenueConfig]
    engine: EngineConfig
    journal: JournalConfig
    redis: RedisConfig
    mqtt: MqttConfig
    webhook: WebhookConfig
    http: HttpConfig
    log: LogConfig


class PipelineConfig(Struct, frozen=True):
    """What the pure part depends on; stands in every journal, so that a replay needs no file."""

    venues: dict[str, VenueConfig]
    engine: EngineConfig
    instruments: list[Instrument]


class Layer(Struct, frozen=True):
    """One source of settings, such as a file, and the nested values it sets."""

    origin: str
    values: dict[str, Any]


def parse_toml(text: str, origin: str) -> Layer:
    """A TOML file as a layer.

    Raises:
        ConfigError: it is not TOML; says where.
    """
    try:
        return Layer(origin, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin}: {error}") from error


def parse_environment(environment: Mapping[str, str]) -> Layer:
    """The variables ``CASCADE_<SECTION>__<KEY>`` as a layer.

    A value is read as a TOML value where it is one, else as a string; one of `TEXT_KEYS` is always
    a string.

    Raises:
        ConfigError: a variable that is neither a setting nor one of `NOT_SETTINGS`.
    """
    values: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_SETTINGS:
            continue
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if len(path) == 1 and path[0] not in {"state_directory", "queue_length"}:
            raise ConfigError(_unknown_variable(name))
        node = values
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"environment {name}: a part of this name is itself a value")
        node[path[-1]] = text if path[-1] in TEXT_KEYS else _value(text)
    return Layer("environment", values)


def merge(layers: Sequence[Layer]) -> tuple[Config, dict[str, str]]:
    """The effective configuration, and the origin of each value by its dotted path.

    The first layer is the shipped file, which names every venue. Later layers win key by key; a
    table of `instruments` is replaced as a whole.

    Raises:
        ConfigError: an unknown key (with a suggestion), a wrong type or a value out of range.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _overlay(merged, layer.values, layer.origin, origins, "")
    venues = merged.get("venues", {})
    known = list(venues) if not layers else list(layers[0].values.get("venues", {}))
    for name, values in venues.items() if isinstance(venues, dict) else ():
        if name not in known:
            where = _origin_of(f"venues.{name}", origins)
            raise ConfigError(
                f"{where}: venues.{name}: unknown venue; known are {', '.join(known)}"
            )
        venue = _convert(values, VenueConfig, f"venues.{name}", origins)
        for known_as in (part for pair in venue.instruments.items() for part in pair):
            if not _NAME.fullmatch(known_as):
                path = f"venues.{name}.instruments"
                raise ConfigError(
                    f"{_origin_of(path, origins)}: {path}: {known_as!r} is no name of an "
                    "instrument or asset: it is empty or has a space or a control character"
                )
    return _convert(merged, Config, "", origins), origins


def parse_instruments(text: str, origin: str) -> list[Instrument]:
    """The static table of instrument specifications.

    Raises:
        ConfigError: it is not TOML or a field is wrong.
    """
    rows = parse_toml(text, origin).values.get("instrument", [])
    for row in rows:
        for tier in row.get("tiers", []):
            if tier.get("cap") == inf:  # TOML has no null
                tier["cap"] = None
    try:
        return msgspec.convert(rows, list[Instrument])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _unknown_variable(name: str) -> str:
    """Says that a variable is no setting, and which name it is nearest to."""
    stem = name.removeprefix(ENVIRONMENT_PREFIX).removesuffix("_FILE")
    venue = stem.partition("VENUES_")[2].partition("_")[0]
    sections = {section: _keys(section) for section in _keys("") if section != "venues"}
    known = [f"{section}__{key}" for section, keys in sections.items() for key in keys]
    known += [section for section, keys in sections.items() if not keys]
    known += [f"venues__{venue}__{key}" for key in _keys("venues") if venue]
    others = [other.removeprefix(ENVIRONMENT_PREFIX) for other in sorted(NOT_SETTINGS)]
    near = difflib.get_close_matches(stem, [*(key.upper() for key in known), *others], n=1)
    if not near:
        hint = f"settings are {ENVIRONMENT_PREFIX}<SECTION>__<KEY>, with two underscores"
    else:
        suffix = "_FILE" if name.endswith("_FILE") else ""
        hint = f"did you mean {ENVIRONMENT_PREFIX}{near[0]}{suffix}?"
    return f"environment {name}: no such setting; {hint}"


def _value(text: str) -> Any:  # noqa: ANN401  (a TOML value is anything)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _overlay(
    below: dict[str, Any], above: dict[str, Any], origin: str, origins: dict[str, str], path: str
) -> None:
    for key, value in above.items():
        where = f"{path}.{key}" if path else key
        mergeable = isinstance(value, dict) and isinstance(below.get(key), dict)
        if mergeable and key != "instruments":
            _overlay(below[key], value, origin, origins, where)
        else:
            below[key] = copy.deepcopy(value)  # the layer stays as it is
            for known in [k for k in origins if k == where or k.startswith(where + ".")]:
                del origins[known]
            _note(value, origin, origins, where)


def _note(value: Any, origin: str, origins: dict[str, str], path: str) -> None:  # noqa: ANN401
    if isinstance(value, dict):
        for key, inner in value.items():
            _note(inner, origin, origins, f"{path}.{key}")
    else:
        origins[path] = origin


def _convert(values: Any, kind: type[_S], path: str, origins: dict[str, str]) -> _S:  # noqa: ANN401
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), path, origins)) from error


def _explain(message: str, section: str, origins: dict[str, str]) -> str:
    """Add to msgspec's message where the value came from, and a suggestion for an unknown key."""
    problem, _, path = message.partition(" - at `$")
    where = ".".join(part for part in (section, path.rstrip("`").lstrip(".")) if part)
    if "unknown field" in problem:
        key = problem.split("`")[1]
        near = difflib.get_close_matches(key, _keys(where), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        where = f"{where}.{key}" if where else key
        return f"{_origin_of(where, origins)}: unknown key {where!r}{hint}"
    return f"{_origin_of(where, origins)}: {where or 'top level'}: {problem}"


def _origin_of(path: str, origins: dict[str, str]) -> str:
    whole = path.partition("[")[0]  # of a list or table, msgspec names the item
    within = (o for p, o in origins.items() if p == whole or p.startswith(f"{whole}."))
    return next(within, "configuration")


def _keys(path: str) -> list[str]:
    """The keys allowed at a dotted path."""
    if not path:
        return list(Config.__struct_fields__)
    if path.startswith("venues"):
        return list(VenueConfig.__struct_fields__)
    return list(getattr(Config.__annotations__.get(path), "__struct_fields__", ()))
