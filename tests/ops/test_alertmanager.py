"""Alertmanager: valid, every alert reaches whom it should, and causes silence their symptoms."""

import pytest

from tests.ops import files, needs, servers

ALERTS = files.alerts()
AM = str(files.ALERTMANAGER)


def test_the_configuration_is_valid():
    needs.run(needs.program("amtool"), "check-config", AM)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_reaches_whom_its_severity_says(name):
    labels = ALERTS[name]["labels"] | {"alertname": name}
    receiver = {"critical": "pager", "none": "deadman"}.get(labels["severity"], "chat")
    needs.run(
        needs.program("amtool"),
        *("config", "routes", "test", f"--config.file={AM}", f"--verify.receivers={receiver}"),
        *(f"{key}={value}" for key, value in labels.items()),
    )


def test_somebody_elses_alert_is_not_lost():
    amtool = needs.program("amtool")
    route = ("config", "routes", "test", f"--config.file={AM}", "--verify.receivers=chat")
    needs.run(amtool, *route, "alertname=Other", "severity=warning")


def test_the_watchdog_is_notified_every_minute():
    route = files.load(files.ALERTMANAGER)["route"]["routes"][0]
    assert route["receiver"] == "deadman"
    assert route["repeat_interval"] == "1m"


def routes(route):
    yield route
    for inner in route.get("routes", []):
        yield from routes(inner)


def test_a_repetition_is_a_multiple_of_the_group_interval():
    root = files.load(files.ALERTMANAGER)["route"]
    inherited = {"group_interval": root["group_interval"], "repeat_interval": "4h"}
    for route in routes(root):
        both = {key: route.get(key, inherited[key]) for key in inherited}
        repeat, group = (files.seconds(both[key]) for key in ("repeat_interval", "group_interval"))
        assert repeat % group == 0


def alert(name, **labels):
    fixed = ALERTS[name]["labels"]
    return {"labels": {"alertname": name, "job": "cascade", "instance": "m1"} | fixed | labels}


def key(entry):
    labels = entry["labels"]
    return labels["alertname"], labels.get("asset") or labels.get("venue") or labels["instance"]


def test_a_cause_silences_its_symptoms_and_nothing_else(tmp_path):
    btc, eth = ({"asset": asset, "direction": "down"} for asset in ("BTC", "ETH"))
    silenced = [
        alert("CascadeRiskWatch", **btc),
        alert("CascadeRiskWarning", **btc),
        alert("CascadeLoopGainHigh", **btc),
        alert("CascadeRiskWatch", **eth),
        alert("CascadeFeedSilent", venue="okx", channel="book"),
        alert("CascadeBookUnsynced", venue="okx", symbol="BTC-USDT-SWAP"),
        alert("CascadeBookUnsynced", venue="bybit", symbol="BTCUSDT"),
        alert("CascadeScoreMissing", asset="SOL"),
        alert("CascadeQueueNearLimit", instance="m2", queue="inbox"),
    ]
    told = [
        alert("CascadeRiskCritical", **btc),
        alert("CascadeRiskCascading", **btc, phase="cascading"),
        alert("CascadeRiskWarning", **eth),
        alert("CascadeRiskExhausted", **btc, phase="exhausted"),
        alert("CascadeRiskWarning", **(btc | {"direction": "up"})),
        alert("CascadeVenueMissing", venue="okx"),
        alert("CascadeFeedSilent", venue="bybit", channel="book"),
        alert("CascadeBookUnsynced", venue="binance", symbol="BTCUSDT"),
        alert("CascadeAbstaining", asset="SOL", direction="down"),
        alert("CascadeMonitorDown", instance="m2"),
        alert("CascadeRiskWarning", instance="m2", asset="XRP", direction="down"),
        alert("CascadeQueueNearLimit", queue="inbox"),
    ]
    with servers.alertmanager(tmp_path) as address:
        api = f"http://{address}/api/v2/alerts"
        servers.ask(api, silenced + told)

        def settled():
            found = servers.ask(api)
            return len(found) == len(silenced + told) and found

        found = servers.until(settled, 60, "every alert is known")
    inhibited = {bool(entry["status"]["inhibitedBy"]): [] for entry in found}
    for entry in found:
        inhibited[bool(entry["status"]["inhibitedBy"])].append(entry["labels"])

    def sort(labels):
        return sorted(map(str, (sorted(one.items()) for one in labels)))

    assert sort(inhibited[True]) == sort(entry["labels"] for entry in silenced)
    assert sort(inhibited[False]) == sort(entry["labels"] for entry in told)
