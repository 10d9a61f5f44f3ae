"""The names of the MQTT topics, and the message that tells Home Assistant of them.

The contract with readers is `docs/mqtt.md`.
"""

import re
from collections.abc import Iterable
from math import ceil
from typing import Any, Final, get_args

import msgspec

from monitor import __version__
from monitor.config import ConfigError, MqttConfig
from monitor.events import HORIZONS_S, Direction, Message
from monitor.sinks.outbox import STATE_KINDS

ONLINE: Final = "online"
OFFLINE: Final = "offline"

_TOPIC_PART = re.compile(r"[^/+#$\x00][^/+#\x00]*")


def topic_of(prefix: str, message: Message, shard: str = "") -> str:
    """Where a message is published: states below their asset, events below their kind."""
    if message.kind == "status":
        parts = [prefix, "health", shard]
    elif message.kind in STATE_KINDS:
        parts = [prefix, message.asset, message.kind, message.venue]
    else:
        parts = [prefix, message.kind, message.asset]
    return "/".join(part for part in parts if part)


def availability_topic(prefix: str, shard: str = "") -> str:
    """Where ``online`` and ``offline`` stand."""
    return f"{prefix}/status/{shard}" if shard else f"{prefix}/status"


def standing_topic(prefix: str, asset: str) -> str:
    """Where the current alert of each direction stands."""
    return f"{prefix}/{asset}/alert"


def check_names(config: MqttConfig, assets: Iterable[str]) -> None:
    """Refuse names that make no topic.

    Raises:
        ConfigError: a prefix or an asset has a character with a meaning of its own.
    """
    for key in ("prefix", "home_assistant_prefix"):
        path = getattr(config, key)
        if not all(_TOPIC_PART.fullmatch(part) for part in path.split("/")):
            raise ConfigError(f"mqtt.{key}: {path!r} is no topic: no +, # or $, no empty part")
    for asset in assets:
        if not _TOPIC_PART.fullmatch(asset):
            raise ConfigError(f"mqtt: the asset {asset!r} cannot be a part of a topic")


def discovery(config: MqttConfig, assets: Iterable[str], shard: str = "") -> tuple[str, bytes]:
    """Topic and payload that make Home Assistant show a device with the sensors of some assets.

    One retained message for the whole device, as it is understood since version 2024.11.
    """
    device = re.sub(r"[^A-Za-z0-9_-]", "_", f"{config.prefix}_{shard}" if shard else config.prefix)
    sensors: dict[str, dict[str, Any]] = {}
    for asset in assets:
        for direction in get_args(Direction):
            sensors |= _sensors(config, device, asset, direction)
    payload = {
        "device": {
            "identifiers": [device],
            "name": f"Cascade monitor {shard}".rstrip(),
            "manufacturer": "cascade-monitor",
            "sw_version": __version__,
        },
        "origin": {"name": "cascade-monitor", "sw_version": __version__},
        "availability_topic": availability_topic(config.prefix, shard),
        "payload_available": ONLINE,
        "payload_not_available": OFFLINE,
        "qos": 1,
        "components": sensors,
    }
    return f"{config.home_assistant_prefix}/device/{device}/config", msgspec.json.encode(payload)


def _sensors(
    config: MqttConfig, device: str, asset: str, direction: Direction
) -> dict[str, dict[str, Any]]:
    # What is not there or not known renders as None, which Home Assistant shows as unknown.
    field = (
        f"value_json.data.directions | selectattr('direction', 'eq', '{direction}')"
        " | map(attribute='{0}') | first | default({1})"
    )
    percent = "{{% set x = {0} %}}{{{{ (100 * x) | round(2) if x is number else None }}}}"
    found: dict[str, dict[str, Any]] = {
        "score": {
            "name": f"{asset} {direction} score",
            "value_template": percent.format(field.format("score", "none")),
        }
    }
    for horizon_s in HORIZONS_S:
        ratio = (
            f"({field.format('probabilities', '[]')}) | selectattr('horizon_s', 'eq', {horizon_s})"
            " | map(attribute='ratio') | first | default(none)"
        )
        found[f"probability_{horizon_s // 60}m"] = {
            "name": f"{asset} {direction} probability {horizon_s // 60} min",
            "value_template": percent.format(ratio),
        }
    for sensor in found.values():
        sensor |= {"unit_of_measurement": "%", "state_class": "measurement"}
    found["phase"] = {
        "name": f"{asset} {direction} phase",
        "value_template": f"{{{{ {field.format('phase', 'none')} }}}}",
    }
    sensors = {}
    for name, sensor in found.items():
        key = re.sub(r"[^a-z0-9_]", "_", f"{asset}_{direction}_{name}".lower())
        sensors[key] = sensor | {
            "platform": "sensor",
            "state_topic": f"{config.prefix}/{asset}/risk",
            "unique_id": f"{device}_{key}",
            "expire_after": ceil(config.state_ttl_s),
        }
    return sensors
