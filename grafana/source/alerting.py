"""Grafana's own alert rules: the Prometheus rules again, for sites without Alertmanager."""

import re
from typing import Any, Final

from grafana_foundation_sdk.models import dashboard as model

from grafana.source.rules import ALERTS, Alert

FOLDER: Final = "Cascade"
INTERVAL: Final = "10s"
"""Grafana's shortest; every duration of a rule is at least this or 0."""

PANELS: Final[dict[str, tuple[str, str]]] = {
    "CascadeRiskWatch": ("cascade-overview", "Phase of each asset and direction"),
    "CascadeRiskWarning": ("cascade-overview", "Phase of each asset and direction"),
    "CascadeRiskCritical": ("cascade-overview", "Phase of each asset and direction"),
    "CascadeRiskCascading": ("cascade-overview", "Phase of each asset and direction"),
    "CascadeRiskExhausted": ("cascade-overview", "Phase of each asset and direction"),
    "CascadeProbabilityHigh": (
        "cascade-overview",
        "Probability of a cascade within 15 minutes",
    ),
    "CascadeCriticalShockNear": (
        "cascade-overview",
        "Critical shock: the least move that would feed itself",
    ),
    "CascadeLoopGainHigh": (
        "cascade-overview",
        "Loop gain: forced move over the move that forced it",
    ),
    "CascadeAbstaining": ("cascade-overview", "Directions without a score"),
    "CascadeScoreMissing": ("cascade-overview", "Cascade risk now"),
    "CascadeMonitorDown": ("cascade-internals", "Monitors answering"),
    "CascadeMonitorGone": ("cascade-internals", "Monitors answering"),
    "CascadeConfigMismatch": ("cascade-internals", "Software that runs"),
    "CascadeVenueMissing": ("cascade-feeds", "Sockets open"),
    "CascadeFeedSilent": ("cascade-feeds", "Streams silent, by venue and channel"),
    "CascadeBookUnsynced": ("cascade-feeds", "Books true"),
    "CascadeEngineLagging": ("cascade-internals", "Inputs wait for the engine"),
    "CascadeQueueNearLimit": ("cascade-internals", "Fill of each queue"),
    "CascadeSinkFailing": ("cascade-internals", "Attempts to deliver that fail"),
    "CascadeDiscarding": ("cascade-internals", "Messages lost in 5 minutes"),
    "CascadeJournalLosing": ("cascade-internals", "Inputs not recorded in 5 minutes"),
}
"""The panel that shows what an alert watches. The watchdog watches nothing."""


def alert_rules(dashboards: list[model.Dashboard]) -> dict[str, Any]:
    """The content of `provisioning/alerting/rules.yml`."""
    numbers = {
        (board.uid, panel.title): panel.id_val
        for board in dashboards
        for panel in board.panels or []
    }
    groups: dict[str, list[dict[str, Any]]] = {}
    for alert in ALERTS.values():
        groups.setdefault(alert.group, []).append(_rule(alert, numbers))
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": name,
                "folder": FOLDER,
                "interval": INTERVAL,
                "rules": rules,
            }
            for name, rules in groups.items()
        ],
    }


def _rule(alert: Alert, numbers: dict[tuple[str | None, str | None], int | None]) -> dict[str, Any]:
    shown = PANELS.get(alert.name)
    return {
        "uid": _uid(alert.name),
        "title": alert.name,
        "condition": "B",
        "data": [_query(alert), _threshold(alert)],
        "for": _slower(alert.hold_for),
        "keepFiringFor": _slower(alert.keep_firing_for),
        # A series that vanishes is held as long as Prometheus would hold it: 5 minutes.
        "missing_series_evals_to_resolve": 30,
        # A query without a result is the normal state of `absent` and `unless`; what should be
        # there and is not has rules of its own.
        "noDataState": "OK",
        "execErrState": "Error",
        **({"dashboardUid": shown[0], "panelId": numbers[shown]} if shown else {}),
        "labels": alert.labels,
        "annotations": {
            name: text.replace("$value", "$values.A.Value")
            for name, text in alert.annotations.items()
        },
    }


def _query(alert: Alert) -> dict[str, Any]:
    return {
        "refId": "A",
        "datasourceUid": "prometheus",
        "relativeTimeRange": {"from": 600, "to": 0},
        "model": {
            "refId": "A",
            "expr": alert.left,
            "instant": True,
            "range": False,
        },
    }


def _threshold(alert: Alert) -> dict[str, Any]:
    evaluator = {"type": "gt" if alert.sign == ">" else "lt", "params": [alert.limit]}
    return {
        "refId": "B",
        "datasourceUid": "__expr__",
        "model": {
            "refId": "B",
            "type": "threshold",
            "expression": "A",
            "conditions": [{"evaluator": evaluator}],
        },
    }


def _uid(name: str) -> str:
    """``CascadeRiskWatch`` as ``cascade-risk-watch``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def _slower(duration: str) -> str:
    """A duration that fits the evaluation interval, which is longer than Prometheus's."""
    return INTERVAL if duration == "5s" else "20s" if duration == "15s" else duration
