import json
import re
from pathlib import Path

import msgspec
import pytest

from monitor.core.cascade.stress import Stress
from monitor.core.forecast.alarms import AlarmScore
from monitor.core.forecast.scorecard import ReliabilityBin, Skill
from monitor.events import NS, Depth, Heatmap, Risk
from monitor.sinks.api import Scorecards
from monitor.sinks.envelope import Envelope
from monitor.sinks.guard import HEADERS, POLICY
from monitor.sinks.openapi import described
from tests.sinks.daemon import Daemon, served, warm

TOKEN = "a token, not short"  # noqa: S105
BODIES = {"depth": Depth, "heatmap": Heatmap, "risk": Risk}


@pytest.fixture(scope="module")
def daemon():
    """Shared by tests that only ask."""
    found = warm()
    found.liquidate()
    return found


async def got(session, path, **headers):
    async with session.get(path, headers=headers) as response:
        return response.status, await response.json()


# --------------------------------------------------------------------------------- states


async def test_assets_are_told_with_their_venues_and_what_is_known_of_them(daemon):
    async with served(daemon) as (session, _):
        status, body = await got(session, "/api/v1/assets")
    assert status == 200
    assert body["BTC"]["venues"] == ["binance", "bybit", "okx", "hyperliquid"]
    assert body["BTC"]["states"] == ["depth", "heatmap", "risk"]
    assert body["BTC"]["instruments"] == list(daemon.names)


@pytest.mark.parametrize("kind", BODIES)
async def test_a_state_is_the_message_that_was_published(daemon, kind):
    async with served(daemon) as (session, _):
        status, body = await got(session, f"/api/v1/assets/BTC/{kind}")
    assert status == 200
    envelope = msgspec.convert(body, Envelope)
    published = daemon.latest.states[kind, "BTC", ""]
    assert (envelope.kind, envelope.run, envelope.seq) == (kind, "run1", published.seq)
    assert msgspec.convert(envelope.data, BODIES[kind], str_keys=True) == published.data


async def test_the_map_of_one_venue_can_be_asked_for(daemon):
    async with served(daemon) as (session, _):
        status, body = await got(session, "/api/v1/assets/BTC/heatmap?venue=okx")
        assert (status, body["venue"], body["data"]["name"]) == (200, "okx", "okx")
        status, body = await got(session, "/api/v1/assets/BTC/risk?venue=okx")
        assert (status, "error" in body) == (400, True)


async def test_what_is_stale_is_not_known_rather_than_shown():
    daemon = warm()
    daemon.at += 60 * NS
    async with served(daemon) as (session, _):
        for kind in BODIES:
            status, body = await got(session, f"/api/v1/assets/BTC/{kind}")
            assert (status, body) == (503, {"error": f"{kind} of BTC is not known now"})
        assert (await got(session, "/api/v1/assets"))[1]["BTC"]["states"] == []


@pytest.mark.parametrize(
    "path",
    ["assets/DOGE/risk", "assets/BTC/weather", "assets/BTC/heatmap?venue=kraken",
     "assets/DOGE/stress?shock=-0.1", "assets/DOGE/heatmap/log", "live?asset=DOGE"],
)  # fmt: skip
async def test_what_does_not_exist_is_not_found_and_says_what_does(daemon, path):
    headers = {"Upgrade": "websocket"} if path.startswith("live") else {}
    async with served(daemon) as (session, server):
        status, body = await got(session, f"/api/v1/{path}", **headers)
        assert (status, bool(body["error"])) == (404, True)
        assert server.errors == 0


@pytest.mark.parametrize(
    "path",
    ["assets/BTC/stress", "assets/BTC/stress?shock=", "assets/BTC/stress?shock=nan",
     "assets/BTC/stress?shock=0", "assets/BTC/stress?shock=0.1&within_s=-1",
     "assets/BTC/stress?shock=0.1&within_s=1&spot_share=1.1",
     "assets/BTC/stress?shock=0.1&spot_share=0.5",
     "assets/BTC/stress?shock=-0.31", "assets/BTC/stress?shock=1e999",
     "assets/BTC/heatmap/log?minutes=0", "assets/BTC/heatmap/log?minutes=1441",
     "assets/BTC/liquidations?minutes=x", "alerts?limit=0", "alerts?limit=1.5", "alerts?limit=501"],
)  # fmt: skip
async def test_a_question_without_sense_is_refused_and_names_the_parameter(daemon, path):
    names = ("limit", "minutes", "spot_share", "within_s")
    name = next((name for name in names if f"{name}=" in path), "shock")
    async with served(daemon) as (session, server):
        status, body = await got(session, f"/api/v1/{path}")
        assert status == 400
        assert body["error"].startswith(name)
        assert server.errors == 0


# --------------------------------------------------------------------------------- history


async def test_the_picture_has_every_row_of_the_last_minutes_oldest_first(daemon):
    rows = [m for m in daemon.messages if m.kind == "heatmap:log"]
    async with served(daemon) as (session, _):
        _, body = await got(session, "/api/v1/assets/BTC/heatmap/log?minutes=5")
        _, short = await got(session, "/api/v1/assets/BTC/heatmap/log?minutes=0.4")
    assert [row["seq"] for row in body["entries"]] == [row.seq for row in rows]
    assert body["entries"][-1]["data"]["long_usd"] == rows[-1].data.long_usd
    assert 1 <= len(short["entries"]) <= 3 < len(rows)


async def test_a_picture_that_does_not_reach_back_says_so(daemon):
    async with served(daemon) as (session, _):
        _, within = await got(session, "/api/v1/assets/BTC/heatmap/log?minutes=0.4")
        _, beyond = await got(session, "/api/v1/assets/BTC/heatmap/log?minutes=60")
    assert within["lacks"] == ""
    assert "since the start" in beyond["lacks"]


async def test_one_venue_has_a_picture_of_its_own(daemon):
    async with served(daemon) as (session, _):
        _, body = await got(session, "/api/v1/assets/BTC/heatmap/log?minutes=5&venue=okx")
    own = [m for m in daemon.messages if m.kind == "heatmap" and m.venue == "okx"]
    assert 3 <= len(body["entries"]) <= len(own)
    last = body["entries"][-1]
    assert last["venue"] == "okx"
    of = next(m for m in own if m.at // 1000 == last["at_us"])
    assert sum(last["data"]["long_usd"]) <= sum(of.data.long_usd) + 1000
    assert sum(last["data"]["long_usd"]) > 0


async def test_liquidations_are_told_in_microseconds_and_with_the_position_side(daemon):
    async with served(daemon) as (session, _):
        _, body = await got(session, "/api/v1/assets/BTC/liquidations?minutes=5")
    (print_,) = body["entries"]
    assert print_["data"]["side"] == "long"
    assert print_["data"]["sent_at_us"] == daemon.at // 1000


# --------------------------------------------------------------------------------- what if


async def test_a_what_if_is_the_solvers_own_answer(daemon):
    async with served(daemon) as (session, _):
        status, body = await got(session, "/api/v1/assets/BTC/stress?shock=-0.03")
    assert status == 200
    own = daemon.pipeline.engine.assets["BTC"].stress(daemon.at, -0.03)
    assert msgspec.convert(body["stress"], Stress) == own
    assert body["solved_on"] == "curves"
    assert own.landing_ratio is None or own.landing_ratio <= -0.03


async def test_a_what_if_soon_after_a_shock_of_perpetuals_alone_closes_less(daemon):
    found = {}
    async with served(daemon) as (session, _):
        for query in ("", "&within_s=30", "&within_s=30&spot_share=0", "&within_s=0&spot_share=0"):
            _, body = await got(session, f"/api/v1/assets/BTC/stress?shock=-0.03{query}")
            found[query] = (body["stress"]["beta"], body["stress"]["liquidated_usd"])
    assert [beta for beta, _ in found.values()] == [1.0, 1.0, pytest.approx(0.2), 0.0]
    usd = [usd for _, usd in found.values()]
    assert usd[0] == usd[1] > usd[2] > usd[3] == 0.0


async def test_a_what_if_without_any_input_is_unknown_and_not_calm():
    async with served(Daemon()) as (session, _):
        status, body = await got(session, "/api/v1/assets/BTC/stress?shock=-0.03")
    assert status == 503
    assert {part["name"] for part in body["missing"]} == set(Daemon().names)


async def test_the_track_record_has_a_row_per_direction_and_horizon(daemon):
    async with served(daemon) as (session, _):
        _, body = await got(session, "/api/v1/scorecard")
    rows = [(s["direction"], s["horizon_s"]) for s in body["skills"]]
    assert rows == [(d, h) for d in ("down", "up") for h in (300, 900, 3600)]
    assert len(body["alarms"]) == len(body["rivals"]) == 2
    assert body["reasons"] == {}


async def test_the_track_record_says_in_words_why_forecasts_are_not_graded():
    daemon = warm()
    async with served(daemon) as (session, _):
        (asset,) = daemon.pipeline.engine.assets.values()
        card = asset.outlooks["down"].cards[300]
        (forecast,) = card.state().pending
        card.unseen(forecast.at, forecast.due, "liquidations_new", possible=True)
        card.mature(daemon.at, forecast.due)
        _, body = await got(session, "/api/v1/scorecard")
    (row, *_) = body["skills"]
    assert (row["matured"], row["unresolved"], row["next_due_us"]) == (0, 1, None)
    assert {why: n for why, n in row["ungraded"].items() if n} == {"liquidations_new": 1}
    assert list(body["reasons"]) == ["liquidations_new"]
    assert "a day" in body["reasons"]["liquidations_new"]


def test_every_term_of_the_track_record_is_documented():
    text = Path("docs/api.md").read_text("utf-8")
    section = text.partition("### Track record")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(\w+)`", section))
    terms = (Scorecards, Skill, ReliabilityBin, AlarmScore)
    assert {field for of in terms for field in of.__struct_fields__} <= told


# ------------------------------------------------------------------------------ description


async def test_the_description_has_every_path_that_is_served(daemon):
    async with served(daemon) as (session, server):
        _, body = await got(session, "/api/v1/openapi.json")
        paths = {p.replace("/{kind}", "/risk") for p in server._routes if "/api/v1/" in p}
    told = set(body["paths"]) - {"/api/v1/assets/{asset}/heatmap", "/api/v1/assets/{asset}/depth"}
    assert told == paths - {"/api/v1/live"}
    assert body["openapi"].startswith("3.1")


async def test_every_reference_of_the_description_leads_somewhere():
    whole = described(token=True)
    text = json.dumps(whole)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in whole["components"]["schemas"]


@pytest.mark.parametrize("kind", ["heatmap", "risk", "liquidations", "alerts"])
async def test_the_description_names_the_very_fields_that_are_sent(daemon, kind):
    schemas = described(token=False)["components"]["schemas"]
    of = schemas[f"Message.{kind}"]["properties"]["data"]["$ref"].rpartition("/")[2]
    path = {"alerts": "alerts", "liquidations": "assets/BTC/liquidations"}
    if kind == "alerts":
        daemon = warm()
        daemon.liquidate(usd=9e6)
        daemon.run_for(20, price=0.95 * daemon.price)
    async with served(daemon) as (session, _):
        _, body = await got(session, f"/api/v1/{path.get(kind, f'assets/BTC/{kind}')}")
    sent = body["entries"][0] if "entries" in body else body
    assert set(sent["data"]) == set(schemas[of]["properties"])


# --------------------------------------------------------------------------------- security


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "127.0.0.1.nip.io", ""])
async def test_a_strangers_name_that_points_here_is_refused(daemon, host):
    async with served(daemon) as (session, _):
        status, body = await got(session, "/api/v1/assets", Host=host)
        assert status in ({421} if host else {400, 421})
        assert "http.allowed_hosts" in body["error"]
        assert (await got(session, "/healthz", Host="any.name.of.a.probe"))[0] == 200


@pytest.mark.parametrize(
    "host", ["localhost:9464", "LOCALHOST.", "127.0.0.1", "[::1]:9464", "10.1.2.3:80", "monitor"]
)
async def test_our_own_names_and_every_address_are_answered(daemon, host):
    async with served(daemon, allowed_hosts=["monitor"]) as (session, _):
        assert (await got(session, "/api/v1/assets", Host=host))[0] == 200


async def test_a_token_is_asked_of_everything_but_probes_and_the_pages_files(daemon):
    async with served(daemon, token=TOKEN) as (session, server):
        for path in server._routes:
            async with session.get(path.replace("{asset}", "BTC").replace("{kind}", "risk")) as r:
                public = path in {"/", "/healthz", "/readyz"} or path.startswith("/page/")
                assert (r.status == 401) is not public, path
        for wrong in ("Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN} ", "Bearer", "Bearer é"):
            right = wrong.strip() == f"Bearer {TOKEN}"
            status, _ = await got(session, "/api/v1/assets", Authorization=wrong)
            assert status == (200 if right else 401)


async def test_the_page_may_load_its_own_files_only_and_an_answer_nothing(daemon):
    async with served(daemon) as (session, _):
        async with session.get("/") as page:
            policy = page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert page.headers.items() >= HEADERS.items()
            text = await page.text()
            tag = page.headers["ETag"]
        assert "http://" not in text
        assert "https://" not in text
        async with session.get("/", headers={"If-None-Match": tag}) as again:
            assert (again.status, await again.read()) == (304, b"")
        async with session.get("/api/v1/assets") as answer:
            assert answer.headers["Content-Security-Policy"] == POLICY
            assert answer.headers["Cache-Control"] == "no-store"


async def test_the_page_is_small(daemon):
    async with served(daemon) as (_, server):
        assert sum(len(file.plain) for file in server._files.values()) < 200_000
        assert sum(len(file.packed) for file in server._files.values()) < 60_000
