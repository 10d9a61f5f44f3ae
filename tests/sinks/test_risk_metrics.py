"""What Prometheus reads of the risk."""

import pytest

from monitor.events import Message
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
