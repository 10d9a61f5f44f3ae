"""The report measures what it says, and a short run of it is complete and repeatable."""

from math import log

import msgspec
import numpy as np
import pytest

from monitor.backtest import heatmap
from monitor.backtest.fitted import fit
from monitor.backtest.heatmap import Moment, graded, measured, moments, spearman, verdicts
from monitor.backtest.page import page
from monitor.backtest.tape import PRINTS, Tape, record
from monitor.core.heatmap.priors import SIMULATED

EDGES = np.arange(33) * 0.0025


@pytest.fixture(scope="module")
def tape() -> Tape:
    """Sixteen minutes of the smallest market, with one graded moment."""
    return record(2, minutes=16)


def moment(truth, models, closed=None, reached=0.05):
    nothing = np.zeros(32)
    return Moment(
        seed=1, variant="first", edges=[EDGES, EDGES], truth=[truth, truth], stopped=0.0,
        models={name: [m, m] for name, m in models.items()},
        low=[nothing, nothing], high=[truth * 2, truth * 2], scale=(0.5, 2.0),
        closed=[closed if closed is not None else nothing, nothing], reached=[reached, 0.0],
    )  # fmt: skip


def at(i, usd=1.0):
    values = np.zeros(32)
    values[i] = usd
    return values


def test_wasserstein_is_the_distance_between_two_lumps():
    assert heatmap.wasserstein(at(4), at(12), EDGES) == pytest.approx(8 * 0.25)
    assert heatmap.wasserstein(at(4), at(4, 99.0), EDGES) == 0.0


def test_spearman_is_one_for_any_rising_function_and_handles_ties():
    x = np.arange(32.0)
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -x) == pytest.approx(-1.0)
    assert spearman(x, np.ones(32)) == 0.0


def test_the_top_decile_of_a_flat_map_is_chance_and_of_a_true_map_everything():
    chance = np.random.Generator(np.random.PCG64(1)).random(32)
    truth = [at(3), at(5)]
    assert heatmap.top_decile(truth, truth) == 1.0
    assert heatmap.top_decile([np.ones(32)] * 2, [chance] * 2) == pytest.approx(6 / 64)


def test_information_counts_only_what_was_reached():
    # All dollars fell in bucket 4 of 20 reached; a map that says so gains ln 20, less the floor.
    m = moment(at(4), {"map": at(4), "uniform": np.ones(32)}, closed=at(4, 1e6))
    gain, usd = heatmap.information(m, "map")
    assert usd == 1e6
    assert gain / usd == pytest.approx(log(0.98 * 20 + 0.02))
    assert heatmap.information(m, "uniform")[0] == pytest.approx(0.0)


def test_a_map_twice_too_large_has_mass_ratio_two():
    m = moment(at(4, 5.0), {"map": at(4, 10.0)})
    result = heatmap.summary([measured(m, "map")])
    assert result["mass_ratio"] == pytest.approx(2.0)
    assert result["wasserstein"] == 0.0


def test_the_better_map_is_called_better_with_an_interval():
    chance = np.random.Generator(np.random.PCG64(2))
    found = []
    for seed in range(12):
        truth = chance.exponential(1.0, 32)
        m = moment(truth, {"map": truth * 1.1, "uniform": np.ones(32)}, closed=truth)
        m.seed = seed
        found.append(m)
    result = graded(found, draws=50)
    met = {v["target"]: v["met"] for v in verdicts(result)}
    assert met["wasserstein better than uniform"]
    assert met["information better than uniform"]
    assert met["mass_ratio within 0.8-1.25"]


def test_a_tape_holds_what_the_public_sees(tape):
    assert [i.venue for i in tape.instruments] == list(PRINTS)
    by_venue = [[s for s in tape.seconds if s.venue == i] for i in range(4)]
    for venue, seconds in zip(PRINTS, by_venue, strict=True):
        most = max(len(s.prints) for s in seconds)
        if PRINTS[venue] == "tail_only":
            assert most == 0
        elif PRINTS[venue] in {"sampled_1s", "partial"}:
            assert most <= 1
        assert sum(s.interest is not None for s in seconds) == 16 * 12
    assert len(tape.truths) == 1
    assert min(tape.truths[0].distance) >= 0


def test_open_interest_on_the_tape_is_late(tape):
    own = [s for s in tape.seconds if s.venue == 0]
    assert own[3].interest is None
    assert own[4].interest is not None


def test_maps_of_a_tape_conserve_and_the_report_is_repeatable(tape):
    maps, estimates = heatmap.play(tape, prior=SIMULATED.prior, parameters=SIMULATED.parameters)
    assert [len(e) for e in estimates] == [4]
    for m in maps:
        for ledger in m.ledgers():
            assert ledger.error < 1e-9
            assert ledger.standing <= m.interest * (1 + m.SLACK + 1e-12)
    once = heatmap.report([2], variants=["first"], tapes=lambda *_: tape)
    again = heatmap.report([2], variants=["first"], tapes=lambda *_: tape)
    assert msgspec.json.encode(once) == msgspec.json.encode(again)
    assert set(once["all"]["models"]) == {
        "map", "uniform", "climatology", "static profile", "public recipe",
    }  # fmt: skip
    text = page(once)
    assert text.count("<svg") == 2
    assert "http" not in text.replace("http-equiv", "")


def test_the_fitted_mix_is_a_mixture(tape):
    prior = fit([tape], SIMULATED.parameters)
    for side in (0, 1):
        assert sum(prior.mix[side]) == pytest.approx(1.0, abs=1e-2)
        assert 0 < prior.share[side] < 1
        rising = np.diff(prior.climatology[side])
        assert (rising >= 0).all()


def test_baselines_know_as_much_as_the_map(tape):
    found = moments(tape, prior=SIMULATED.prior, parameters=SIMULATED.parameters)
    for name, sides in found[0].models.items():
        for s in (0, 1):
            assert (sides[s] >= 0).all(), name
            assert len(sides[s]) == len(found[0].edges[s]) - 1
