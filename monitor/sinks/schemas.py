"""JSON Schemas (draft 2020-12) of the messages, made from the very types that are written.

`python -m monitor.sinks.schemas` writes them to `docs/schemas`, and with ``--check`` only says
which of them are not current. Like readers they accept fields they do not know.
"""

import argparse
import inspect
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from monitor import events
from monitor.sinks.envelope import TIMES, VERSION

DIRECTORY: Final = Path("docs/schemas")

BODIES: Final[dict[events.Kind, tuple[type, ...]]] = {
    "alerts": (events.Alert,),
    "depth": (events.Depth,),
    "forecasts": (events.Forecast, events.ForecastVerdict),
    "heatmap": (events.Heatmap,),
    "heatmap:log": (events.HeatmapRow,),
    "liquidations": (events.Liquidation,),
    "risk": (events.Risk,),
    "status": (events.Status,),
    "undelivered": (events.Undelivered,),
}
"""What a message of each kind has in ``data``: one of these."""

_Schema = dict[str, Any]


def schemas() -> dict[str, _Schema]:
    """Every kind's schema, by the name of its file."""
    return {f"{kind.replace(':', '-')}.json": _message(kind) for kind in BODIES}


def _message(kind: events.Kind) -> _Schema:
    bodies = BODIES[kind]
    refs, components = msgspec.json.schema_components(bodies, ref_template="#/$defs/{name}")
    for component in components.values():
        # Python 3.13 and later strip the indentation of docstrings, earlier ones do not.
        component["description"] = inspect.cleandoc(component["description"])
    for body in bodies:
        components[body.__name__] = _in_microseconds(components[body.__name__], TIMES.get(body, ()))
    asset = _described("string", "the underlying; empty where it is about the whole process")
    properties = {
        "v": {"const": VERSION, "description": "version of the contract"},
        "kind": {"const": kind},
        "run": _described("string", "the process that wrote it"),
        "seq": _described("integer", "counts from 1 by run, kind, asset and venue")
        | {"minimum": 1},
        "at_us": _described("integer", "microseconds since 1970-01-01 UTC"),
        "asset": asset,
        "venue": _described("string", "only where it is about one venue of the asset"),
        "data": refs[0] if len(refs) == 1 else {"oneOf": list(refs)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name != "venue"],
        "$defs": dict(sorted(components.items())),
    }


def _in_microseconds(schema: _Schema, times: tuple[str, ...]) -> _Schema:
    def told(name: str) -> str:
        return f"{name}_us" if name in times else name

    return schema | {
        "properties": {told(name): of for name, of in schema["properties"].items()},
        "required": [told(name) for name in schema["required"]],
    }


def _described(kind: str, description: str) -> _Schema:
    return {"type": kind, "description": description}


def main() -> int:
    """Write the schemas, or with ``--check`` name those that are not current."""
    parser = argparse.ArgumentParser(prog="python -m monitor.sinks.schemas")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if not current")
    check = parser.parse_args().check
    made = {
        name: msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"
        for name, schema in schemas().items()
    }
    found = {path.name: path.read_bytes() for path in sorted(DIRECTORY.glob("*.json"))}
    stale = sorted(name for name in made.keys() | found.keys() if made.get(name) != found.get(name))
    if check:
        for name in stale:
            sys.stderr.write(f"{DIRECTORY / name} is not current\n")
        return 1 if stale else 0
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in made:
            (DIRECTORY / name).write_bytes(made[name])
        else:
            (DIRECTORY / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
