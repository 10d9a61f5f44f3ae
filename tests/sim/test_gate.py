"""The figures of the realism gate that short runs over held-out seeds can judge.

The whole gate is a command (docs/realism.md). Here a figure that is claimed to be met there fails
the build when it no longer is. Figures that need many events are left to the command, because one
shock cannot judge them: here depth at |z| = 25+ rests on six minutes and would miss.
"""

import pytest

from monitor.sim.realism import PLAIN, measure, record
from monitor.sim.scenarios import News, Scenario

# Not used in tuning; the command's table in docs/realism.md is of seeds 421 to 440.
SEEDS = (901, 902)

CLAIMED = (
    "volume / OI per day",
    "depth ratio at |z| = 1",
    "depth ratio at |z| = 5",
    "depth at trigger / normal",
    "throttle factor in bursts / quiet",
    "peak minute / event total",
)


def bad_news(move):
    """The gate's shock as early as an event can be found, so that it costs less."""
    news = News(start_s=1_870.0, over_s=20.0, move=move)
    return Scenario("calm", "one piece of news", {"jumps_per_day": 0.0}, news=(news,))


@pytest.fixture(scope="module")
def gate():
    plain = [record(PLAIN, seed=seed, hours=0.1) for seed in SEEDS]
    shocks = [record(bad_news(-0.02), seed=seed, hours=1.045) for seed in SEEDS[:1]]
    return {row.figure: row for row in measure(plain, shocks)}


@pytest.mark.parametrize("name", CLAIMED)
def test_a_figure_claimed_to_be_met_is_met(gate, name):
    row = gate[name]
    assert row.count > 0
    assert row.low <= row.measured <= row.high, f"{name}: {row.measured:.3g}, wanted {row.target}"
