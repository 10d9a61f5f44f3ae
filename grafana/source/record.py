"""Track record: what the forecasts and the alerts were worth."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.source.page import ASSET, choice, page
from grafana.source.panels import Panel, Steps, bars, lines, numbers, rows

OF = 'asset="$asset"'
ONE = "{{direction}} {{horizon}}"
SKILL: Steps = ((None, "red"), (0.0, "green"))
"""Below 0 the forecast is worse than the baseline."""


def record() -> model.Dashboard:
    """Registered forecasts and alerts against what came."""
    return page(
        "cascade-record",
        "Cascade track record",
        "What the forecasts and the alerts were worth, judged after the fact.",
        [
            ("Do the forecasts for $asset know more than the baseline?", _skill()),
            ("Do events come as often as forecast?", _reliability()),
            ("Are the alerts for $asset worth waking up for?", _alerts()),
            ("Is the map right?", _map()),
        ],
        variables=[
            choice("asset", "Asset", ASSET),
            choice(
                "horizon",
                "Horizon",
                "label_values(cascade_forecast_reliability_ratio, horizon)",
            ),
        ],
        since="now-7d",
        refresh="1m",
    )


def _skill() -> list[Panel]:
    return [
        lines(
            "Brier skill, $asset",
            "1 is perfect, 0 no better than what is usual, below 0 worse.",
            "percentunit",
            (f"cascade_forecast_brier_skill_ratio{{{OF}}}", ONE),
            steps=SKILL,
            floor=None,
        ),
        lines(
            "Logarithmic skill, $asset",
            "The same for the logarithmic score, which punishes being sure and wrong.",
            "percentunit",
            (f"cascade_forecast_log_skill_ratio{{{OF}}}", ONE),
            steps=SKILL,
            floor=None,
        ),
        numbers(
            "Forecasts resolved, $asset",
            "Without many, the skill is noise.",
            "short",
            (f"sum by (direction, horizon) (cascade_forecasts_resolved_total{{{OF}}})", ONE),
            span=24,
        ),
    ]


def _reliability() -> list[Panel]:
    chosen = 'horizon="$horizon"'
    return [
        rows(
            "Forecast and observed frequency by bin, $horizon",
            "Observed should equal forecast in every bin.",
            (
                f"max by (bin) (cascade_forecast_predicted_ratio{{{chosen}}})",
                "Forecast",
                "percentunit",
            ),
            (
                f"max by (bin) (cascade_forecast_reliability_ratio{{{chosen}}})",
                "Observed",
                "percentunit",
            ),
            labels=("bin",),
            span=12,
        ),
        lines(
            "Observed less forecast by bin, $horizon",
            "Above 0 the forecast was too calm, below 0 too alarmed.",
            "percentunit",
            (
                (
                    f"cascade_forecast_reliability_ratio{{{chosen}}} "
                    f"- cascade_forecast_predicted_ratio{{{chosen}}}"
                ),
                "{{bin}}",
            ),
            steps=((None, "text"), (0.0, "green")),
            floor=None,
        ),
    ]


def _alerts() -> list[Panel]:
    return [
        bars(
            "Alerts that were followed by a cascade, $asset",
            "Precision.",
            "percentunit",
            (f"cascade_alert_precision_ratio{{{OF}}}", "{{direction}}"),
            ceiling=1.0,
            span=6,
        ),
        bars(
            "Cascades that were alerted, $asset",
            "Recall.",
            "percentunit",
            (f"cascade_alert_recall_ratio{{{OF}}}", "{{direction}}"),
            ceiling=1.0,
            span=6,
        ),
        bars(
            "Median lead of an alert over its cascade, $asset",
            "How long one had to act.",
            "s",
            (f"cascade_alert_lead_seconds{{{OF}}}", "{{direction}}"),
            span=6,
        ),
        bars(
            "False alarms a day, $asset",
            "Alerts that nothing followed.",
            "none",
            (f"cascade_false_alarms_per_day_ratio{{{OF}}}", "{{direction}}"),
            span=6,
        ),
        lines(
            "Precision and recall, $asset",
            "Over time.",
            "percentunit",
            (f"cascade_alert_precision_ratio{{{OF}}}", "precision {{direction}}"),
            (f"cascade_alert_recall_ratio{{{OF}}}", "recall {{direction}}"),
            ceiling=1.0,
        ),
        lines(
            "Alert events per day, $asset",
            "What the engine raised, changed and cleared.",
            "none",
            (
                (f"86400 * sum by (phase) (rate(cascade_alerts_total{{{OF}}}[$__rate_interval]))"),
                "{{phase}}",
            ),
            bars=True,
        ),
    ]


def _map() -> list[Panel]:
    return [
        lines(
            "Liquidations observed over expected",
            "In bands that the price has swept; 1 means that the map was right, at least this much "
            "where it expected less than 40 prints. Venues that report a sample only make it less.",
            "none",
            ("cascade_map_print_ratio", "{{asset}} {{direction}}"),
            span=24,
        ),
    ]
