"""`cascade-monitor stress`: how a shock is given, and that every source gets the same solver."""

import json

import numpy as np
import pytest

from monitor import cli, whatif
from monitor.core.cascade.curves import DISTANCES, STEP
from monitor.core.heatmap.pooling import fuel
from monitor.events import Band, Heatmap
from tests.core.test_asset import START, listed, published, spec, told


@pytest.mark.parametrize(("text", "ratio"), [("-3%", -0.03), ("+2%", 0.02), ("0.05", 0.05)])
def test_a_shock_is_a_ratio_or_a_percentage(text, ratio):
    options = cli._parser().parse_args(cli._joined(["stress", "BTC", "--shock", text]))
    assert options.shock == pytest.approx(ratio)


@pytest.mark.parametrize("text", ["0", "40%", "-1", "fall"])
def test_a_shock_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["stress", "BTC", "--shock", text])
    assert ended.value.code == 2
    assert "--shock" in capsys.readouterr().err


def test_a_daemon_that_does_not_answer_is_said(capsys):
    assert cli.main(["stress", "BTC", "--shock", "-3%", "--url", "http://127.0.0.1:1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_depth_between_published_distances_follows_a_power_law():
    law = lambda u: 5e9 * u**1.2  # noqa: E731
    distances = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
    bands = [Band(d, law(d), 2 * law(d), True, True) for d in distances]
    bids, asks = (whatif._depth_curve(bands, side) for side in (0, 1))
    inside = slice(1, round(0.2 / STEP) + 1)
    assert bids[inside] == pytest.approx(law(DISTANCES[inside]), rel=1e-6)
    assert asks[inside] == pytest.approx(2 * bids[inside])
    assert bids[0] == 0.0
    assert (np.diff(bids) >= 0).all()


def test_fuel_read_from_a_message_is_the_fuel_of_the_map():
    engine = listed(spec(0))
    told(engine, spec(0).name)
    heatmap = published(engine, START + 5 * 10**9)
    assert isinstance(heatmap, Heatmap)
    estimate = next(iter(engine.assets["BTC"].estimates(START + 5 * 10**9).values()))
    for side, direction in ((0, "down"), (1, "up")):
        curve = whatif._fuel_curve(heatmap, side)
        assert curve == pytest.approx(fuel(estimate, direction), rel=1e-4, abs=1.0)


def test_a_journal_without_the_asset_is_said(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli.main(["stress", "BTC", "--shock", "-3%", "--journal", str(empty)]) == 2
    assert "journal" in capsys.readouterr().err


def test_the_answer_is_json_when_a_machine_reads(monkeypatch, capsys):
    known = listed(spec(0)).assets["BTC"].stress(START, -0.03)
    monkeypatch.setattr(whatif, "of_daemon", lambda *_: whatif.Answer(1, "BTC", known))
    assert cli.main(["stress", "BTC", "--shock", "-3%", "--json"]) == 0
    told_ = json.loads(capsys.readouterr().out)
    assert told_["stress"]["missing"][0]["unknown"] == ["mark", "depth", "fuel"]
    assert cli.main(["stress", "BTC", "--shock", "-3%"]) == 1
