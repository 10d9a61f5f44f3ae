"""`cascade-monitor stress`: how a shock is given, and that every source gets the same solver."""

import json

import numpy as np
import pytest

from monitor import ask, cli, whatif
from monitor.core.cascade.curves import DISTANCES, STEP
from monitor.core.heatmap.pooling import fuel
from monitor.events import Band, Heatmap, InsuranceFund
from monitor.sinks.envelope import encode
from tests.core.test_asset import START, listed, published, spec, told
from tests.sinks.daemon import warm


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
    answer = whatif.Answer(1, "BTC", known, "curves")
    monkeypatch.setattr(whatif, "of_daemon", lambda *_: answer)
    assert cli.main(["stress", "BTC", "--shock", "-3%", "--json"]) == 0
    told_ = json.loads(capsys.readouterr().out)
    assert told_["stress"]["missing"][0]["unknown"] == ["mark", "depth", "fuel"]
    assert cli.main(["stress", "BTC", "--shock", "-3%"]) == 1


# -------------------------------------------------------------------------------- two sources


class Published:
    """What a daemon's Redis holds."""

    def __init__(self, daemon):
        self._daemon = daemon

    def _message(self, *topic):
        states = self._daemon.latest.states
        if topic not in states:
            raise ask.Unanswered("not there")
        return encode(states[topic], "run1")

    def risk(self, asset):
        return self._message("risk", asset, "")

    def depth(self, asset):
        return self._message("depth", asset, "")

    def heatmap(self, asset, venue):
        return self._message("heatmap", asset, venue)


@pytest.fixture(scope="module")
def daemon():
    found = warm()
    covered = tuple(name for name in found.names if name.startswith("okx:"))
    found.tell(InsuranceFund("okx", found.at, {"USDT": 5e6, "OKB": 3.0}, covered))
    return found.run_for(12)


def test_from_redis_comes_nearly_the_same_and_it_is_said_what_it_was_solved_on(daemon):
    told_ = whatif.of_redis(Published(daemon), "BTC", whatif.Question(-0.03))
    own = daemon.pipeline.engine.assets["BTC"].stress(daemon.at, -0.03)
    found = told_.stress
    assert told_.solved_on == "messages"
    assert (found.psi, found.survival, found.beta) == (own.psi, own.survival, 1.0)
    assert found.liquidated_usd == pytest.approx(own.liquidated_usd, rel=0.25)
    assert found.landing_ratio == pytest.approx(own.landing_ratio, abs=0.01)
    assert found.shortfall_usd is not None
    funds = {fund.name: fund.fund_usd for fund in found.funds}
    assert funds == {"binance": None, "bybit": None, "okx": 5e6, "hyperliquid": None}


def test_the_table_names_source_parameters_and_funds(daemon, monkeypatch, capsys):
    for source, words in (
        ("curves", "curves of map and books"),
        ("messages", "published messages"),
    ):
        own = daemon.pipeline.engine.assets["BTC"].stress(
            daemon.at, -0.03, within_s=30.0, spot_share=0.25
        )
        answer = whatif.Answer(1, "BTC", own, source)
        monkeypatch.setattr(whatif, "of_daemon", lambda *_, found=answer: found)
        assert cli.main(["stress", "BTC", "--shock", "-3%"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert words in text
        assert "50% of displayed depth survives" in text
        assert "after 30 s the mark has followed 40% of the move (in spot: 25%)" in text
        assert "OKB (no price)" in text
        assert "forced flow" in text


def test_the_question_goes_to_the_daemon_as_it_was_asked(monkeypatch):
    urls = []
    monkeypatch.setattr(ask.OverHttp, "_get", lambda _, url: urls.append(url) or b"{}")
    source = ask.OverHttp("http://127.0.0.1:1")
    for question in (whatif.Question(-0.03), whatif.Question(0.05, 30.0, 0.0)):
        with pytest.raises(ask.Unanswered):
            whatif.of_daemon(source, "BTC", question)
    queries = [url.partition("?")[2] for url in urls]
    assert queries == ["shock=-0.03", "shock=0.05&within_s=30.0&spot_share=0.0"]


@pytest.mark.parametrize(
    "options", [["--within", "-1"], ["--within", "x"], ["--within", "5", "--spot-share", "1.5"]]
)
def test_a_time_or_share_that_is_none_is_refused(options, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["stress", "BTC", "--shock", "-3%", *options])
    assert ended.value.code == 2
    assert options[-2] in capsys.readouterr().err


def test_a_share_of_spot_without_a_time_makes_no_sense_and_is_said(capsys):
    assert cli.main(["stress", "BTC", "--shock", "-3%", "--spot-share", "0.5"]) == 2
    assert "--within" in capsys.readouterr().err
