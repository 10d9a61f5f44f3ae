"""The files under test, read once."""

import json
from pathlib import Path

from tests.ops import needs

yaml = needs.module("yaml")

CONFIG = Path("config/prometheus")
RULES = sorted(CONFIG.glob("rules/*.yml"))
RULE_TESTS = sorted(Path("tests/ops").glob("*_test.yml"))
ALERTMANAGER = Path("config/alertmanager/alertmanager.yml")
DASHBOARDS = sorted(Path("grafana/dashboards").glob("*.json"))
PROVISIONING = Path("grafana/provisioning")
RUNBOOK = Path("docs/runbook.md")


def load(path):
    return yaml.safe_load(path.read_text("utf-8"))


def every_rule():
    return [rule for path in RULES for group in load(path)["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in every_rule() if "alert" in rule}


def records():
    return {rule["record"]: rule["expr"] for rule in every_rule() if "record" in rule}


def dashboards():
    return {path.stem: json.loads(path.read_text("utf-8")) for path in DASHBOARDS}


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def grafana_rules():
    file = load(PROVISIONING / "alerting" / "rules.yml")
    return {rule["title"]: rule for group in file["groups"] for rule in group["rules"]}


def seconds(duration):
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return int(duration[:-1]) * units[duration[-1]]
