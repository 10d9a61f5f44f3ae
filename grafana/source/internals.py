"""Internals: whether the daemon keeps up and delivers."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.source.page import page
from grafana.source.panels import UNLESS_ZERO, Panel, limit, lines, numbers, rows, states

ANSWERS = (("down", "red"), ("up", "green"))
EXCHANGES = (("failing", "red"), ("working", "green"))
QUANTILE = "histogram_quantile(0.99, sum by (le, instance) (rate({}[$__rate_interval])))"


def internals() -> model.Dashboard:
    """From the inbox to the sinks."""
    return page(
        "cascade-internals",
        "Cascade internals",
        "Whether the daemon keeps up with the market and delivers what it knows.",
        [
            ("Is it running, and which?", _running()),
            ("Does it keep up?", _pace()),
            ("Does it deliver?", _sinks()),
            ("Does it record?", _journal()),
            ("What does it use?", _resources()),
        ],
        since="now-1h",
    )


def _running() -> list[Panel]:
    return [
        states(
            "Monitors answering",
            "Whether Prometheus could scrape them. CascadeMonitorDown fires after a minute.",
            ('up{job="cascade"}', "{{instance}}"),
            ANSWERS,
        ),
        rows(
            "Software that runs",
            "By instance.",
            ("max by (instance, version, revision, python) (cascade_build_info)", "Build", "none"),
            labels=("instance", "version", "revision", "python"),
            span=12,
        ),
    ]


def _pace() -> list[Panel]:
    return [
        lines(
            "Inputs wait for the engine",
            "How late every figure is. Above the dashed line CascadeEngineLagging fires and "
            "/readyz fails.",
            "s",
            ("cascade_engine_lag_seconds", "{{instance}}"),
            steps=limit("CascadeEngineLagging"),
        ),
        lines(
            "Inputs per second, by kind",
            "What the pipeline takes.",
            "ops",
            (
                "sum by (kind) (rate(cascade_engine_inputs_total[$__rate_interval]))",
                "{{kind}}",
            ),
        ),
        lines(
            "Time of one step, 99th percentile",
            "1 step in 31 is timed.",
            "s",
            (QUANTILE.format("cascade_engine_step_seconds_bucket"), "{{instance}}"),
            span=8,
        ),
        lines(
            "Lateness of the event loop, 99th percentile",
            "How late a timer fires.",
            "s",
            (QUANTILE.format("cascade_event_loop_lag_seconds_bucket"), "{{instance}}"),
            span=8,
        ),
        lines(
            "Fill of each queue",
            "What waits over what the queue holds. Above the dashed line CascadeQueueNearLimit "
            "fires.",
            "percentunit",
            ("queue:cascade_queue_fill:ratio", "{{instance}} {{queue}}"),
            steps=limit("CascadeQueueNearLimit"),
            ceiling=1.0,
            span=8,
        ),
        lines(
            "Waits at a full queue per minute",
            "Sockets are then read more slowly.",
            "none",
            (
                "60 * sum by (instance, queue) (rate(cascade_queue_waits_total[$__rate_interval]))",
                "{{instance}} {{queue}}",
            ),
        ),
        lines(
            "Snapshots published per second",
            "By kind, over all assets.",
            "ops",
            (
                "sum by (kind) (rate(cascade_snapshot_sequence[$__rate_interval]))",
                "{{kind}}",
            ),
        ),
    ]


def _sinks() -> list[Panel]:
    return [
        states(
            "Sinks working",
            "Whether the last exchange went through.",
            ("cascade_sink_connected", "{{instance}} {{sink}}"),
            EXCHANGES,
        ),
        lines(
            "Attempts to deliver that fail",
            "Of all attempts in 5 minutes. Above the dashed line CascadeSinkFailing fires.",
            "percentunit",
            ("sink:cascade_sink_failures:ratio_rate5m", "{{instance}} {{sink}}"),
            steps=limit("CascadeSinkFailing"),
            ceiling=1.0,
        ),
        lines(
            "Messages delivered per second",
            "By sink.",
            "ops",
            (
                "sum by (instance, sink) (rate(cascade_sink_sent_total[$__rate_interval]))",
                "{{instance}} {{sink}}",
            ),
            span=8,
        ),
        lines(
            "Messages lost in 5 minutes",
            "From a full queue; state replaced by newer state is not counted. CascadeDiscarding "
            "fires on any.",
            "none",
            (
                (
                    "sum by (instance, sink) "
                    '(increase(cascade_sink_discarded_total{intentional="false"}[5m]))'
                ),
                "{{instance}} {{sink}}",
            ),
            steps=limit("CascadeDiscarding"),
            span=8,
        ),
        lines(
            "Time since the last delivery",
            "By sink; `journal` is the recording.",
            "s",
            ("time() - cascade_sink_last_success_timestamp_seconds", "{{instance}} {{sink}}"),
            span=8,
        ),
    ]


def _journal() -> list[Panel]:
    return [
        lines(
            "Recorded bytes per second",
            "Compressed.",
            "Bps",
            (
                "sum by (instance) (rate(cascade_journal_bytes_total[$__rate_interval]))",
                "{{instance}}",
            ),
        ),
        lines(
            "Inputs not recorded in 5 minutes",
            "The disk did not keep up, or refused. CascadeJournalLosing fires on any.",
            "none",
            (
                "sum by (instance, reason) (increase(cascade_journal_lost_records_total[5m]))",
                "{{instance}} {{reason}}",
            ),
            steps=limit("CascadeJournalLosing"),
        ),
    ]


def _resources() -> list[Panel]:
    return [
        lines(
            "Processor time",
            "Of one core.",
            "percentunit",
            (
                'rate(process_cpu_seconds_total{job="cascade"}[$__rate_interval])',
                "{{instance}}",
            ),
            span=8,
        ),
        lines(
            "Memory",
            "Resident.",
            "bytes",
            ('process_resident_memory_bytes{job="cascade"}', "{{instance}}"),
            span=8,
        ),
        numbers(
            "Open files",
            "Sockets included.",
            "none",
            ('process_open_fds{job="cascade"}', "{{instance}}"),
            span=4,
        ),
        numbers(
            "Inputs that no feed owns",
            "Not 0 only in a replay.",
            "none",
            ("sum(cascade_engine_unrouted_total)", "inputs"),
            steps=UNLESS_ZERO,
            span=4,
        ),
    ]
