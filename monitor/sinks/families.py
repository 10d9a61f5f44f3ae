"""How a metric is declared: its name, kind, labels and help, once."""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

BANDS: Final = {d: f"{d:g}" for d in (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)}
"""Distances from the price that are exported, as ratios, and their label."""


class Family(Struct, frozen=True):
    """One metric: its name as Prometheus shows it, and its labels in order."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    help: str


FAMILIES: Final[list[Family]] = []
"""Every metric of ours, in the order of the page."""


def counter(name: str, text: str, *labels: str) -> Family:
    """A counter; ``_total`` is added to its name."""
    FAMILIES.append(Family(f"cascade_{name}_total", "counter", labels, text))
    return FAMILIES[-1]


def gauge(name: str, text: str, *labels: str) -> Family:
    """A gauge."""
    FAMILIES.append(Family(f"cascade_{name}", "gauge", labels, text))
    return FAMILIES[-1]


def histogram(name: str, text: str, *labels: str) -> Family:
    """A histogram."""
    FAMILIES.append(Family(f"cascade_{name}", "histogram", labels, text))
    return FAMILIES[-1]


def info(name: str, text: str, *labels: str) -> Family:
    """Labels of a constant 1; ``_info`` is added to its name."""
    FAMILIES.append(Family(f"cascade_{name}_info", "info", labels, text))
    return FAMILIES[-1]


Row: TypeAlias = tuple[Family, tuple[str, ...], float]
"""A sample: its family, its labels in the family's order, and its value."""
