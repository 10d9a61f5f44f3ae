"""Renders `grafana/source` to what Grafana reads: ``python -m grafana.generate [--check]``."""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.source.alerting import alert_rules
from grafana.source.asset import asset
from grafana.source.feeds import feeds
from grafana.source.internals import internals
from grafana.source.overview import overview
from grafana.source.record import record

HERE: Final = Path(__file__).parent

NOTE: Final = (
    "# Generated from config/prometheus/rules by `python -m grafana.generate`; do not edit.\n"
    "# For sites without Alertmanager: beside it, everything would be notified twice.\n"
)


def render() -> dict[Path, str]:
    """Every generated file and its content."""
    dashboards = [overview(), asset(), feeds(), record(), internals()]
    files = {}
    for board in dashboards:
        text = json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        files[HERE / "dashboards" / f"{board.uid}.json"] = text + "\n"
    # Copied through JSON so that nothing is the same object twice: YAML would refer to the first.
    rules = yaml.safe_dump(
        json.loads(json.dumps(alert_rules(dashboards))), sort_keys=False, width=100
    )
    files[HERE / "provisioning" / "alerting" / "rules.yml"] = NOTE + rules
    return files


def main() -> int:
    """Write the files, or with ``--check`` say which are not current and exit 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = [
        path
        for path, text in render().items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    for path in stale:
        name = path.relative_to(HERE.parent)
        if check:
            print(f"not current: {name}", file=sys.stderr)  # noqa: T201
        else:
            path.write_text(render()[path], "utf-8")
            print(name)  # noqa: T201
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
