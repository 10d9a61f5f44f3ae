"""Every query of every rule and dashboard, asked of a real Prometheus that has every metric."""

import re
import time
from itertools import count
from urllib.parse import quote

import pytest

from tests.ops import exposition, files, needs, servers

needs.module("yaml")

CHOICES = {"$__rate_interval": "10s", "$asset": "BTC", "$horizon": "15m"}
SCRAPES = 4


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """Has scraped a page with every metric some times, and one target that is down."""
    needs.program("prometheus")
    scrapes = count(1)
    dead = f"{servers.HOST}:{servers.free_port()}"
    with servers.http(lambda *_: exposition.page(next(scrapes))) as page:
        with servers.prometheus(tmp_path_factory.mktemp("prometheus"), [page, dead]) as url:
            scraped = quote(f"count_over_time(cascade_build_info[1m]) >= {SCRAPES}")
            servers.until(
                lambda: servers.ask(f"{url}/api/v1/query?query={scraped}")["data"]["result"],
                30,
                "the page is scraped often enough for a rate",
            )
            yield url


def substituted(expression):
    for name, value in CHOICES.items():
        expression = expression.replace(name, value)
    assert not re.search(r"\$[a-z_]", expression), expression
    return expression


def result(url, expression, *, instant):
    query = quote(substituted(expression))
    if instant:
        answer = servers.ask(f"{url}/api/v1/query?query={query}")
    else:
        now = time.time()
        span = f"start={now - 5:.0f}&end={now:.0f}&step=1"
        answer = servers.ask(f"{url}/api/v1/query_range?query={query}&{span}")
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


TARGETS = [
    pytest.param(target, panel["title"], id=f"{uid}: {panel['title']}, {target['refId']}")
    for uid, board in files.dashboards().items()
    for panel in files.panels(board)
    for target in panel["targets"]
]


@pytest.mark.parametrize(("target", "title"), TARGETS)
def test_a_panel_has_data(prometheus, target, title):
    found = result(prometheus, target["expr"], instant=target.get("instant", False))
    assert found, target["expr"]
    # Series that a legend cannot tell apart would be drawn as one.
    legends = [legend(target.get("legendFormat", ""), series["metric"]) for series in found]
    if target.get("legendFormat"):
        assert len(set(legends)) == len(legends), (title, legends)


def legend(template, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), template)


@pytest.mark.parametrize(
    "query",
    sorted(
        {
            query
            for board in files.dashboards().values()
            for query in (
                [v["query"] for v in board["templating"].get("list", [])]
                + [annotation["expr"] for annotation in board["annotations"]["list"]]
            )
        }
    ),
)
def test_a_variable_has_values_and_an_annotation_parses(prometheus, query):
    if wanted := re.fullmatch(r"label_values\((\w+), (\w+)\)", query):
        match = quote(wanted[1])
        answer = servers.ask(f"{prometheus}/api/v1/label/{wanted[2]}/values?match[]={match}")
        assert answer["data"]
    else:
        result(prometheus, query, instant=False)


@pytest.mark.parametrize(("name", "expression"), files.records().items())
def test_a_recording_rule_records(prometheus, name, expression):
    assert result(prometheus, expression, instant=True)
    assert servers.until(lambda: result(prometheus, name, instant=True), 60, f"{name} is recorded")


@pytest.mark.parametrize("name", files.alerts())
def test_an_alert_reads_what_is_there(prometheus, name):
    """Without its comparisons the expression has data, unless it looks for absence."""
    expression = files.alerts()[name]["expr"].strip()
    result(prometheus, expression, instant=True)
    left = re.sub(r" [<>]=? [0-9.]+(?=\)|$)", "", expression)
    if "absent(" in expression:
        assert not result(prometheus, expression, instant=True)
    elif "unless" in expression:
        there, missing = re.split(r"\sunless on \([^)]*\)\s", left)
        assert result(prometheus, there, instant=True)
        assert result(prometheus, missing, instant=True)
    else:
        assert result(prometheus, left, instant=True)


def test_prometheus_evaluates_our_rules_without_an_error(prometheus):
    groups = servers.ask(f"{prometheus}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(files.every_rule())
    assert not [rule["name"] for rule in rules if rule["health"] == "err"]
