"""The Prometheus alerts as data: the one place from which Grafana's thresholds come."""

import re
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import yaml

RULES: Final = Path(__file__).parents[2] / "config" / "prometheus" / "rules"

_COMPARISON: Final = re.compile(r"^(?P<left>.*\S) (?P<sign>[<>]) (?P<limit>[0-9.]+)$", re.DOTALL)


class Alert(NamedTuple):
    """One alerting rule.

    Attributes:
        group: the rule group it is in.
        left: what is compared, or the whole expression where nothing is compared with a number.
        sign: on which side of `limit` it fires.
        limit: 0 where nothing is compared: the expression then has a positive value or none.
    """

    name: str
    group: str
    left: str
    sign: Literal["<", ">"]
    limit: float
    hold_for: str
    keep_firing_for: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def severity(self) -> str:
        """``critical``, ``warning``, ``info`` or ``none``."""
        return self.labels["severity"]


def _alert(group: str, rule: dict[str, Any]) -> Alert:
    expression = rule["expr"].strip()
    compared = _COMPARISON.match(expression)
    left, sign, limit = compared.groups() if compared else (expression, ">", "0")
    return Alert(
        name=rule["alert"],
        group=group,
        left=left,
        sign="<" if sign == "<" else ">",
        limit=float(limit),
        hold_for=rule["for"],
        keep_firing_for=rule["keep_firing_for"],
        labels=rule["labels"],
        annotations=rule["annotations"],
    )


def _read() -> dict[str, Alert]:
    alerts = {}
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    alerts[rule["alert"]] = _alert(group["name"], rule)
    return alerts


ALERTS: Final = _read()
"""By name, in the order of the files."""
