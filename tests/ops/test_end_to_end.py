"""From the market to the webhook: the daemon's own process, Prometheus and Alertmanager.

Rules and routes are ours with every duration divided by `SCALE`, so that minutes pass in seconds.
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from tests.ops import exposition, files, needs, servers

SCALE = 30
SPEED = 2.0
"""Of the market; a cascade and its end take some ten minutes there."""


class Webhook:
    """What Alertmanager has delivered, in order."""

    def __init__(self):
        self.bodies = []

    def __call__(self, path, body):
        if body:
            self.bodies.append((path, json.loads(body)))
        return ""

    def delivered(self, path, status, **labels):
        """The first alert with that status and those labels that came to that path."""
        for at, body in list(self.bodies):
            for alert in body["alerts"] if at == path else ():
                if alert["status"] == status and labels.items() <= alert["labels"].items():
                    return alert
        return None


@contextmanager
def demo(folder, *arguments):
    """The demo as its user starts it; the process and the address of its metrics."""
    folder.mkdir()
    said = folder / "stderr"
    environment = os.environ | {
        "CASCADE_STATE_DIRECTORY": str(folder),
        "CASCADE_HTTP__PORT": "0",
    }
    with said.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "monitor", "demo", *arguments],
            env=environment,
            stdout=err,
            stderr=err,
        )
    try:
        found = servers.until(
            lambda: re.search(r"HTTP: http://([\d.:]+)/", said.read_text("utf-8")), 90, "it serves"
        )
        yield process, found[1]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def operations(folder, target, webhook):
    """Prometheus and Alertmanager around a monitor; the address of Prometheus."""
    with servers.http(webhook) as receiver:
        with servers.alertmanager(folder / "alertmanager", receiver, scale=SCALE) as manager:
            with servers.prometheus(
                folder / "prometheus", [target], alertmanager=manager, scale=SCALE
            ) as url:
                yield url


pytestmark = pytest.mark.skipif(
    os.environ.get("OPS") != "required", reason="takes minutes; make ops runs it"
)


def test_a_monitor_that_dies_is_paged_and_its_return_is_told(tmp_path):
    needs.program("prometheus")
    needs.program("alertmanager", "prometheus-alertmanager")
    webhook = Webhook()
    alive = "cascade_build_info 1\n"
    with servers.http(lambda *_: alive) as target:
        with operations(tmp_path, target, webhook):
            servers.until(
                lambda: webhook.delivered("/deadman", "firing", alertname="CascadeWatchdog"),
                20,
                "the watchdog is delivered",
            )
            assert not webhook.delivered("/page", "firing", alertname="CascadeMonitorDown")
            alive = "no metrics at all {\n"
            fired = servers.until(
                lambda: webhook.delivered("/page", "firing", alertname="CascadeMonitorDown"),
                30,
                "the page is delivered",
            )
            assert fired["labels"]["instance"] == target
            assert fired["annotations"]["runbook_url"] == "docs/runbook.md#cascademonitordown"
            alive = "cascade_build_info 1\n"
            servers.until(
                lambda: webhook.delivered("/page", "resolved", alertname="CascadeMonitorDown"),
                30,
                "the end is told",
            )


@pytest.mark.skipif(
    "cascade_phase" not in exposition.golden(), reason="the daemon exports no phases yet"
)
def test_a_crash_pages_critical_risk_and_its_end_is_told(tmp_path):
    needs.program("prometheus")
    needs.program("alertmanager", "prometheus-alertmanager")
    webhook = Webhook()
    arguments = ("--scenario", "crash", "--seed", "1", "--speed", str(SPEED))
    with demo(tmp_path / "demo", *arguments) as (process, target):
        with operations(tmp_path, target, webhook) as url:
            fired = servers.until(
                lambda: (
                    process.poll() is None
                    and webhook.delivered(
                        "/page", "firing", alertname="CascadeRiskCritical", direction="down"
                    )
                ),
                300,
                "CascadeRiskCritical is delivered",
            )
            assert fired["labels"]["severity"] == "critical"
            assert fired["annotations"]["description"].startswith(fired["labels"]["asset"])
            ask_every_panel(url, target, fired["labels"]["asset"])
            same = {key: fired["labels"][key] for key in ("alertname", "asset", "direction")}
            servers.until(
                lambda: webhook.delivered("/page", "resolved", **same), 1200, "its end is told"
            )
            assert process.poll() is None


def ask_every_panel(url, target, asset):
    """Every query of the dashboards is understood, and the page has what they read."""
    with urllib.request.urlopen(f"http://{target}/metrics") as answer:
        page = answer.read().decode()
    there = set(re.findall(r"^(\w+)[{ ]", page, re.MULTILINE))
    assert {"cascade_risk_score_ratio", "cascade_phase", "cascade_at_risk_usd"} <= there
    choices = {"$__rate_interval": "30s", "$asset": asset, "$horizon": "15m"}
    for board in files.dashboards().values():
        for panel in files.panels(board):
            for part in panel["targets"]:
                expression = part["expr"]
                for name, value in choices.items():
                    expression = expression.replace(name, value)
                answer = servers.ask(f"{url}/api/v1/query?query={quote(expression)}")
                assert answer["status"] == "success", (panel["title"], answer)
