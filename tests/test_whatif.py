"""`cascade-monitor stress`: how a shock is given, and that every source gets the same solver."""

import json
import socket
from threading import Thread

import msgspec
import numpy as np
import pytest
import zstandard

from monitor import ask, cli, whatif
from monitor.arguments import parse
from monitor.config import PipelineConfig
from monitor.core.cascade.curves import DISTANCES
from monitor.core.cascade.insurance import Runway
from monitor.core.cascade.stress import Held, Missing, VenueCurves, stress
from monitor.core.forecast.prints import PSI_MOST
from monitor.core.heatmap.pooling import fuel
from monitor.events import Band, Heatmap, InsuranceFund, Tick
from monitor.journal import SUFFIX, VERSION, Header, encode_header
from monitor.journal import encode as encode_record
from monitor.sinks.envelope import encode
from tests.builders import engine_config
from tests.core.test_asset import START, listed, published, spec, told
from tests.sinks.daemon import warm


@pytest.mark.parametrize(("text", "ratio"), [("-3%", -0.03), ("+2%", 0.02), ("0.05", 0.05)])
def test_a_shock_is_a_ratio_or_a_percentage(text, ratio):
    options = parse(["stress", "BTC", "--shock", text], cli.COMMANDS, cli.REPORTS)
    assert options.shock == pytest.approx(ratio)


@pytest.mark.parametrize("text", ["0", "40%", "-1", "fall"])
def test_a_shock_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["stress", "BTC", "--shock", text])
    assert ended.value.code == 2
    assert f"--shock: '{text}': a move from -30% to 30%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (["--url", "http://127.0.0.1:1"], "no daemon answers at http://127.0.0.1:1 (connection"),
        (
            ["--redis", "redis://:hunter2@127.0.0.1:1/0"],
            "no Redis answers at redis://127.0.0.1:1 (connection",
        ),
        (
            ["--redis", "redis+cluster://:hunter2@127.0.0.1:1/0"],
            "no Redis answers at redis+cluster://127.0.0.1:1 (connection",
        ),
    ],
)
def test_whoever_does_not_answer_is_named_with_what_to_do(source, said, capsys):
    assert cli.main(["stress", "BTC", "--shock", "-3%", *source]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert f"with {source[0]}" in err
    assert err.count("\n") == 1
    assert not {"Errno", "urlopen", "hunter2"} & set(err.replace(":", " ").split())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_daemon_that_goes_in_mid_answer_has_not_answered(answer, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert cli.main(["stress", "BTC", "--shock", "-3%", "--url", url]) == 1
        thread.join()
    assert f"{url}: the daemon broke off its answer" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["127.0.0.1:9464", "http://[::1", "http://"])
def test_an_address_that_is_none_is_refused_with_its_option(url, capsys):
    assert cli.main(["stress", "BTC", "--shock", "-3%", "--url", url]) == 2
    assert f"--url {url}: " in capsys.readouterr().err


PLACES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)


def law(distance, usd=5e9, power=1.2):
    """A book, cumulative USD by log distance."""
    return usd * distance**power


def test_depth_between_and_behind_published_distances_follows_a_power_law():
    bands = [Band(d, law(-np.log1p(-d)), law(np.log1p(d), 1e10), True, True) for d in PLACES]
    bids, asks = (whatif._depth_curve(bands, side) for side in (0, 1))
    assert bids[1:] == pytest.approx(law(DISTANCES[1:]), rel=0.01)
    assert asks == pytest.approx(2 * bids, rel=0.01)
    assert bids[0] == 0.0
    assert (np.diff(bids) >= 0).all()


@pytest.mark.parametrize("reach", [0.0015, 0.04, 0.11])
def test_depth_behind_what_a_venue_shows_goes_on_as_the_daemon_takes_it_to(reach):
    """The last level shown lies between two published distances, which does not say where."""
    shown = [law(min(-np.log1p(-d), reach)) for d in PLACES]
    complete = [-np.log1p(-d) <= reach for d in PLACES]
    bids = whatif._depth_curve(
        [
            Band(d, usd, 1.0, full, True)
            for d, usd, full in zip(PLACES, shown, complete, strict=True)
        ],
        0,
    )
    assert bids[1:] == pytest.approx(law(DISTANCES[1:]), rel=0.25)


def test_depth_of_a_book_that_shows_nothing_in_full_is_what_it_shows_at_least():
    bids = whatif._depth_curve([Band(d, 1e6, 1e6, False, False) for d in PLACES], 0)
    assert bids[1] == pytest.approx(1e6, rel=0.01)
    assert (bids[2:] >= 1e6).all()


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
    assert f"--journal {empty}: no journal there" in capsys.readouterr().err


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

    url = "redis://here:6379"

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
    assert (told_.solved_on, told_.source) == ("messages", "redis://here:6379")
    assert (found.psi, found.survival, found.beta) == (own.psi, own.survival, 1.0)
    assert not found.psi_capped
    assert found.liquidated_usd == pytest.approx(own.liquidated_usd, rel=0.1)
    assert found.landing_ratio == pytest.approx(own.landing_ratio, abs=0.005)
    assert found.shortfall_usd is not None
    assert [n.shock_ratio for n in found.nearby] == [n.shock_ratio for n in own.nearby]
    for ours, theirs in zip(found.nearby, own.nearby, strict=True):
        assert ours.landing_ratio == pytest.approx(theirs.landing_ratio, abs=0.005)
    funds = {fund.name: fund.fund_usd for fund in found.funds}
    assert funds == {"binance": None, "bybit": None, "okx": 5e6, "hyperliquid": None}


def test_the_table_names_source_parameters_and_funds(daemon, monkeypatch, capsys):
    for source, words in (
        ("curves", "from http://here, on the daemon's own curves of map and books"),
        ("messages", "from http://here, on published messages, which are coarser"),
    ):
        own = daemon.pipeline.engine.assets["BTC"].stress(
            daemon.at, -0.03, within_s=30.0, spot_share=0.25
        )
        answer = whatif.Answer(1, "BTC", own, source, "http://here")
        monkeypatch.setattr(whatif, "of_daemon", lambda *_, found=answer: found)
        assert cli.main(["stress", "BTC", "--shock", "-3%"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert words in text
        assert "50% of displayed depth survives" in text
        assert "after 30 s the mark has followed 40% of the move (in spot: 25%)" in text
        assert "OKB (no price)" in text
        assert "forced flow" in text


def test_from_redis_what_is_not_heard_or_not_listed_is_said_by_venue(daemon):
    redis, change = Published(daemon), msgspec.structs.replace
    told_ = daemon.latest.states["risk", "BTC", ""]
    silent = ["okx: mark price", "okx: open interest", "okx: order book", "deribit: specification"]
    silent += ["deribit: specification"]
    redis.risk = lambda _: encode(change(told_, data=change(told_.data, missing=silent)), "run1")
    found = whatif.of_redis(redis, "BTC", whatif.Question(-0.03)).stress
    assert found.unheard == [Held("okx", ["order book", "mark price"])]
    assert found.missing == [Missing("deribit", ["specification"])]
    assert whatif.of_redis(Published(daemon), "BTC", whatif.Question(-0.03)).stress.unheard == []


def test_the_table_names_what_is_counted_though_not_heard(daemon, monkeypatch, capsys):
    found = daemon.pipeline.engine.assets["BTC"].stress(daemon.at, -0.03)
    assert not any("not heard" in line for line in table_of(found, monkeypatch, capsys))
    held = [Held("bybit:BTCUSDT", ["order book", "mark price"])]
    found = msgspec.structs.replace(found, unheard=held)
    line = "counted though not heard: bybit:BTCUSDT (order book, mark price)"
    assert line in table_of(found, monkeypatch, capsys)


def table_of(stress, monkeypatch, capsys):
    """The printed lines, by their first word where they have one."""
    answer = whatif.Answer(1, "BTC", stress, "curves", "http://here")
    monkeypatch.setattr(whatif, "of_daemon", lambda *_: answer)
    assert cli.main(["stress", "BTC", "--shock", "-3%"]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_venue_that_runs_beyond_what_is_seen_is_named_and_the_others_are_plain(
    monkeypatch, capsys
):
    venues = [VenueCurves("thin:X", 100.0, 1e5 * DISTANCES, 1e9 * DISTANCES, 0.005)]
    venues += [VenueCurves(f"{n}:X", 100.0, 2e11 * DISTANCES, 1e8 * DISTANCES, 0.005) for n in "ab"]
    alphas = {venue.name: 0.8 for venue in venues} | {"thin:X": 0.0}
    found = stress(-0.03, venues, survival=1.0, psi=1.5, alphas=alphas)
    assert [v.beyond for v in found.venues] == [True, False, False]
    lines = table_of(found, monkeypatch, capsys)
    said = "thin:X runs beyond what can be seen: its figures, and sums, are lower bounds"
    assert said in lines
    assert any(line.startswith(f"the others land at {found.seen_price:,.6g}") for line in lines)
    assert any(line.startswith("at least $") and line.endswith("liquidated") for line in lines)
    (thin,) = [line for line in lines if line.startswith("thin:X ") and "runs" not in line]
    assert thin.count("at least") == 3
    for name in ("a:X", "b:X"):
        (plain,) = [line for line in lines if line.startswith(f"{name} ")]
        assert "at least" not in plain


def test_where_every_venue_runs_beyond_all_figures_are_lower_bounds(monkeypatch, capsys):
    venues = [VenueCurves("a:X", 100.0, 1e5 * DISTANCES, 1e9 * DISTANCES, 0.005)]
    lines = table_of(stress(-0.03, venues, survival=1.0, psi=1.5), monkeypatch, capsys)
    assert "every venue runs beyond what can be seen: all figures are lower bounds" in lines


def test_where_slightly_other_shocks_end_is_one_line(daemon, monkeypatch, capsys):
    found = daemon.pipeline.engine.assets["BTC"].stress(daemon.at, -0.03)
    below, above = found.nearby
    first = f"a shock of -2.70% lands at {below.landing_ratio:+.2%}"
    second = f"one of -3.30% lands at {above.landing_ratio:+.2%}"
    assert f"{first}, {second}" in table_of(found, monkeypatch, capsys)
    above = msgspec.structs.replace(above, landing_ratio=None, beyond=True, liquidated_usd=680e6)
    found = msgspec.structs.replace(found, nearby=[below, above])
    second = "one of -3.30% runs beyond what can be seen (at least $680M closed)"
    assert f"{first}, {second}" in table_of(found, monkeypatch, capsys)


def test_a_psi_at_its_cap_is_said_to_make_it_an_upper_bound(daemon, monkeypatch, capsys):
    asset = daemon.pipeline.engine.assets["BTC"]
    plain = asset.stress(daemon.at, -0.03)
    assert not plain.psi_capped
    assert not any("cap" in line for line in table_of(plain, monkeypatch, capsys))
    monkeypatch.setattr(asset.conditions, "psi", lambda _: PSI_MOST)
    capped = asset.stress(daemon.at, -0.03)
    assert capped.psi_capped
    lines = table_of(capped, monkeypatch, capsys)
    assert any("psi is estimated at its cap" in line and "upper bound" in line for line in lines)


def test_from_redis_a_psi_at_its_cap_is_known_in_spite_of_what_makers_put_back(daemon):
    risk = daemon.latest.states["risk", "BTC", ""].data
    (down,) = [d for d in risk.directions if d.direction == "down"]

    def at(psi, left):
        change = msgspec.structs.replace
        parts = down.components | {"refill_failure": left}
        return change(down, mechanism=change(down.mechanism, psi=psi), components=parts)

    assert whatif._psi(at(0.6 * PSI_MOST, 0.6)) == (0.6 * PSI_MOST, True)
    assert whatif._psi(at(0.5 * PSI_MOST, 0.6)) == (0.5 * PSI_MOST, False)
    assert whatif._psi(at(PSI_MOST, None)) == (PSI_MOST, True)
    assert whatif._psi(None)[1] is False


def test_what_a_fund_holds_without_a_price_has_a_column_only_where_there_is_any(
    daemon, monkeypatch, capsys
):
    found = daemon.pipeline.engine.assets["BTC"].stress(daemon.at, -0.03)
    assert "fund holds loses lasts besides" in table_of(found, monkeypatch, capsys)
    bare = [msgspec.structs.replace(fund, unvalued=[]) for fund in found.funds]
    bare = msgspec.structs.replace(found, funds=bare)
    assert "fund holds loses lasts" in table_of(bare, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(175_016.0, "over 1,000 times"), (1000.0, "1,000 times"), (2.5, "2.50 times")],
)
def test_a_fund_that_lasts_a_thousand_times_is_said_to_last_over_that(
    ratio, said, daemon, monkeypatch, capsys
):
    found = daemon.pipeline.engine.assets["BTC"].stress(daemon.at, -0.03)
    fund = Runway("binance", 1e9, 1e9 / ratio, ratio, adl_risk=False, unvalued=[])
    found = msgspec.structs.replace(found, funds=[fund])
    (line,) = [x for x in table_of(found, monkeypatch, capsys) if x.startswith("binance $1")]
    assert line.endswith(f" {said}")


def test_last_rounds_that_read_like_the_one_before_are_left_out(daemon, monkeypatch, capsys):
    found = daemon.pipeline.engine.assets["BTC"].stress(daemon.at, -0.03)
    last = found.path[-1]
    again = msgspec.structs.replace(last, price=last.price * (1 - 1e-9))
    found = msgspec.structs.replace(found, path=[*found.path, again, again])
    lines = table_of(found, monkeypatch, capsys)
    start = lines.index("round price move liquidated books take") + 1
    rounds = [line.partition(" ")[2] for line in lines[start : lines.index("", start)]]
    assert len(rounds) > 1
    assert rounds[-1] != rounds[-2]


def test_a_damaged_journal_gives_no_answer_of_its_middle(tmp_path, capsys):
    file = tmp_path / f"x{SUFFIX}"
    header = Header(VERSION, "run", 0, 0, "test", PipelineConfig({}, engine_config(), []))
    frames = [zstandard.compress(line) for line in (encode_header(header), encode_record(Tick(1)))]
    file.write_bytes(frames[0] + frames[1] + b"none of ours" + frames[1])
    assert cli.main(["stress", "BTC", "--shock", "-3%", "--journal", str(file)]) == 2
    assert f"--journal {file}: corrupt from byte" in capsys.readouterr().err


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
