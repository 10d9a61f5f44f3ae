"""Grafana's provisioning files: closed schemas, references that exist, Prometheus's thresholds."""

import json
import re

import pytest

from tests.ops import files, needs

jsonschema = needs.module("jsonschema")
alerting = needs.module("grafana_foundation_sdk.models.alerting")
INTERVAL = needs.module("grafana.source.alerting").INTERVAL

SCHEMA = json.loads(files.Path("tests/ops/schemas/provisioning.json").read_text("utf-8"))
PATHS = sorted(files.PROVISIONING.glob("*/*.yml"))
ALERTS = files.alerts()
RULES = files.grafana_rules()


def name(path):
    return path.relative_to(files.PROVISIONING).with_suffix("").as_posix()


def check(path_name, content):
    schema = SCHEMA | {"$ref": f"#/$defs/{path_name.replace('/', '~1')}"}
    jsonschema.Draft202012Validator(schema).validate(content)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_a_provisioning_file_has_only_keys_that_grafana_reads(path):
    check(name(path), files.load(path))


def test_every_kind_of_provisioning_is_there():
    assert {name(path) for path in PATHS} == {key for key in SCHEMA["$defs"] if "/" in key}


def test_a_wrong_spelling_is_refused():
    content = files.load(files.PROVISIONING / "alerting" / "rules.yml")
    content["groups"][0]["rules"][0]["keep_firing_for"] = "5m"
    with pytest.raises(jsonschema.ValidationError, match="keep_firing_for"):
        check("alerting/rules", content)


@pytest.mark.parametrize("title", RULES)
def test_a_rule_is_written_the_same_by_the_sdk(title):
    """Of the rule, what file and API share; the file's own spellings are in the schema above."""
    shared = {
        key: RULES[title][key]
        for key in (
            "uid",
            "title",
            "condition",
            "data",
            "for",
            "labels",
            "annotations",
            "noDataState",
            "execErrState",
        )
    }
    again = alerting.Rule.from_json(json.loads(json.dumps(shared))).to_json()
    assert {key: again[key] for key in shared if key != "data"} == {
        key: value for key, value in shared.items() if key != "data"
    }
    assert [query.ref_id for query in again["data"]] == ["A", "B"]


# -------------------------------------------------------------------------------- agreement


def test_grafana_and_prometheus_have_the_same_alerts():
    assert set(RULES) == set(ALERTS)


@pytest.mark.parametrize("title", RULES)
def test_grafana_and_prometheus_have_the_same_query_and_threshold(title):
    query, threshold = (part["model"] for part in RULES[title]["data"])
    evaluator = threshold["conditions"][0]["evaluator"]
    sign, limit = {"gt": ">", "lt": "<"}[evaluator["type"]], evaluator["params"][0]
    expression = ALERTS[title]["expr"].strip()
    compared = re.search(r" ([<>]) ([0-9.]+)$", expression)
    if compared:
        assert (sign, limit) == (compared[1], float(compared[2]))
        assert query["expr"] == expression[: compared.start()]
    else:
        assert (sign, limit, query["expr"]) == (">", 0, expression)


@pytest.mark.parametrize("title", RULES)
def test_grafana_and_prometheus_say_the_same_and_wait_as_long(title):
    ours, theirs = RULES[title], ALERTS[title]
    assert ours["labels"] == theirs["labels"]
    assert ours["annotations"]["runbook_url"] == theirs["annotations"]["runbook_url"]
    assert "$value " not in ours["annotations"]["description"]
    # Durations are whole evaluations: as long as Prometheus's, or up to one evaluation longer.
    for mine, other in (("for", "for"), ("keepFiringFor", "keep_firing_for")):
        waits, asked = files.seconds(ours[mine]), files.seconds(theirs[other])
        assert waits % files.seconds(INTERVAL) == 0
        assert 0 <= waits - asked < files.seconds(INTERVAL)


@pytest.mark.parametrize("title", RULES)
def test_a_rule_links_to_a_panel_that_reads_what_it_watches(title):
    rule = RULES[title]
    if title == "CascadeWatchdog":
        assert "dashboardUid" not in rule
        return
    board = files.dashboards()[rule["dashboardUid"]]
    panel = next(panel for panel in board["panels"] if panel["id"] == rule["panelId"])
    shown = " ".join(target["expr"] for target in panel["targets"])
    shown += " ".join(expr for record, expr in files.records().items() if record in shown)
    watched = re.findall(r"cascade_\w+|up\b", rule["data"][0]["model"]["expr"])
    if title != "CascadeConfigMismatch":
        assert any(metric in shown for metric in watched), (title, panel["title"])


def test_every_receiver_and_data_source_that_is_named_exists():
    contacts = files.load(files.PROVISIONING / "alerting" / "contacts.yml")["contactPoints"]
    text = (files.PROVISIONING / "alerting" / "policies.yml").read_text("utf-8")
    assert set(re.findall(r"receiver: (\w+)", text)) == {contact["name"] for contact in contacts}
    sources = files.load(files.PROVISIONING / "datasources" / "prometheus.yml")["datasources"]
    assert [source["uid"] for source in sources] == ["prometheus"]
    assert len({rule["uid"] for rule in RULES.values()}) == len(RULES)


def test_grafana_notifies_as_alertmanager_does():
    ours = files.load(files.PROVISIONING / "alerting" / "policies.yml")["policies"][0]
    theirs = files.load(files.ALERTMANAGER)["route"]

    def outline(route):
        matchers = [f'{a}{b}"{c}"' for a, b, c in route.get("object_matchers", [])]
        return {
            "receiver": route["receiver"],
            "matchers": matchers or route.get("matchers", []),
            "group_by": [label for label in route.get("group_by", []) if label != "grafana_folder"],
            **{key: route.get(key) for key in ("group_wait", "group_interval", "repeat_interval")},
            "routes": [outline(inner) for inner in route.get("routes", [])],
        }

    assert outline(ours) == outline(theirs)


def test_a_scrape_is_what_the_data_source_says_it_is():
    source = files.load(files.PROVISIONING / "datasources" / "prometheus.yml")["datasources"][0]
    scrape = files.load(files.CONFIG / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
