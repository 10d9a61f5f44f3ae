"""What Prometheus reads of the risk."""

import pytest

from monitor.events import NS, Message
from tests.builders import direction_risk, risk
from tests.sinks.test_metrics import Market


@pytest.mark.parametrize(
    ("held", "shown"),
    [("", 0), ("okx missing since it was raised", 1), ("abstaining: coverage unknown", 1),
     ("hold: low enough for 5 min of 10 min", 0), ("cascade: a new low 20 s ago", 0)],
)  # fmt: skip
def test_a_phase_counts_as_held_only_where_an_input_is_missing(held, shown):
    market = Market()
    data = risk(directions=[direction_risk("down", held=held)])
    market.latest.put(Message("risk", "BTC", 1, market.at, data))
    assert market.read()("phase_held", asset="BTC", direction="down") == shown


def test_forecasts_without_a_grade_are_counted_by_their_reason_over_all_assets():
    market = Market(assets=("BTC", "ETH"))
    for asset in market.engine.assets.values():
        card = asset.outlooks["up"].cards[300]
        card.register(market.at, 0.1, 0.05, 0.001)
        card.unseen(market.at, market.at + 60 * NS, "open_interest_unheard")
        card.mature(market.at, market.at + 300 * NS)
    read = market.read()
    name = "forecasts_ungraded_total"
    assert read(name, horizon="5m", reason="open_interest_unheard") == 2
    assert read(name, horizon="5m", reason="away") == 0
    assert read(name, horizon="1h", reason="open_interest_unheard") == 0
