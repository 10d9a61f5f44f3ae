"""The skill report: labels, scores and fits do what they say on cases that are known."""

import argparse

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import cli
from monitor.backtest import fit, skill, stages
from monitor.backtest.fitting import HEAT, TooFewPositivesError, rebased, rows, said
from monitor.backtest.metrics import (
    Series,
    alarms,
    average_precision,
    average_precisions,
    best_alarms,
    molchan,
    reliability,
)
from monitor.backtest.rivals import MAPPED, RIVALS
from monitor.backtest.runs import REFRACTORY_MIN, Run, causal, runs, saved, stage
from monitor.core.forecast.features import FALLING, INPUTS, RISING, Features, logit
from monitor.core.forecast.model import Forecaster, Model

NAN = float("nan")


def a_run(seed=0, variant="first", minutes=90, *, oracle=3.0, ours=1.0):
    """A run whose onsets come where the oracle's structural probability said so."""
    chance = np.random.default_rng([seed, variant == "first"])
    onset_at = [int(chance.integers(8, 80)) if chance.random() < 0.8 else -1 for _ in range(2)]
    path = np.zeros(minutes * 60 + 1)
    forced = np.zeros((minutes, 2))
    truth = np.full((minutes, 2), -4.0)
    for d, sign in ((0, -1.0), (1, 1.0)):
        i = onset_at[d]
        if i < 0 or (d == 1 and abs(i - onset_at[0]) < 12):
            continue
        path[i * 60 + 30 : i * 60 + 330] += sign * 0.01
        forced[i, d] = 1e6
        for ahead, value in ((5, 0.0), (15, -1.0), (60, -2.0)):
            truth[max(0, i - ahead) : i, d] = np.maximum(truth[max(0, i - ahead) : i, d], value)
    x = np.full((minutes, 2, 3, len(INPUTS)), NAN)
    noise = chance.standard_normal((2, minutes, 2, 1))
    x[..., INPUTS.index("structural")] = ours * truth[..., None] + 2.0 * noise[0]
    x[..., INPUTS.index("sigma_fast")] = chance.standard_normal((minutes, 2, 1))
    rivals = np.full((minutes, 2, len(RIVALS), 3, len(MAPPED)), NAN)
    rivals[..., MAPPED.index("structural")] = -3.0
    rivals[:, :, RIVALS.index("oracle"), :, 0] = oracle * truth[..., None] + noise[1]
    told = np.column_stack([np.full(minutes, v) for v in (99.0, 101.0, 100.0, 1e6)])
    arrays = {
        "x": x,
        "rivals": rivals,
        "z": chance.standard_normal((minutes, 2, 2)),
        "told": told,
        "forced": forced,
        "path": path,
    }
    return Run(seed, variant, 0, arrays)


@pytest.fixture(scope="module")
def train():
    return [a_run(seed, variant) for seed in range(20) for variant in ("first", "second")]


@pytest.fixture(scope="module")
def result(train):
    test = [a_run(seed, v) for seed in range(100, 110) for v in ("first", "second")]
    return skill.report(train, test, draws=60)


# -------------------------------------------------------------------------------- the label


def test_a_displacement_by_forced_orders_is_an_onset_and_its_rebound_is_not():
    path, forced = np.zeros(30 * 60 + 1), np.zeros((30, 2))
    path[600:] = -0.02
    path[900:] = -0.005
    forced[10:16] = 1e6
    onset, moved = causal(path, forced)
    assert np.argwhere(onset).tolist() == [[9, 0]] or np.argwhere(onset).tolist() == [[10, 0]]
    assert moved[:, 1].max() == 0.0


def test_a_displacement_without_forced_closes_is_no_cascade():
    path = np.zeros(20 * 60 + 1)
    path[600:] = 0.02
    assert not causal(path, np.zeros((20, 2)))[0].any()


def test_a_cascade_that_goes_on_is_one_onset():
    path = -0.001 * np.arange(60 * 60 + 1) / 10
    onset, _ = causal(path, np.ones((60, 2)))
    first, *later = np.flatnonzero(onset[:, 0]).tolist()
    assert first <= 2
    assert np.diff([first, *later]).min() > REFRACTORY_MIN


def test_what_the_run_does_not_show_is_not_labelled():
    one = next(r for s in range(20) if (r := a_run(s)).onsets[:, 0].any())
    y = one.labels
    i = int(np.flatnonzero(one.onsets[:, 0])[0])
    assert y[i - 1, 0, 0] == 1.0
    assert np.isnan(y[i : i + REFRACTORY_MIN, 0]).all()
    assert np.isnan(y[-5:, :, 0]).all()
    assert np.isnan(y[-60:, :, 2]).all()


def test_markets_differ_in_fragility_and_not_only_in_luck():
    found = [stage(seed).parameters() for seed in range(0, 40, 4)]
    deep = [stage(seed).parameters() for seed in range(1, 41, 4)]
    assert max(p.depth_scale for p in found) < min(p.depth_scale for p in deep)
    assert all(p.crowd_share == 0.0 for p in deep)
    assert all(len(stage(seed).news) == 3 for seed in range(40) if seed % 4 != 3)


# -------------------------------------------------------------------------------- the scores


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_average_precision_is_the_mean_precision_at_the_events(rows_):
    y = np.array([float(event) for event, _ in rows_])
    p = np.array([score / 4 for _, score in rows_])
    found = average_precision(y, p)
    if not y.any():
        assert np.isnan(found)
        return
    by_hand = np.mean([y[p >= q].mean() for q, event in zip(p, y, strict=True) if event])
    assert found == pytest.approx(by_hand)


def test_a_row_of_weight_two_counts_as_two_rows():
    y, p = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.8, 0.3, 0.1])
    twice = average_precisions(y, p, np.array([[1.0, 2.0, 1.0, 1.0]]))[0]
    assert twice == pytest.approx(average_precision(y[[0, 1, 1, 2, 3]], p[[0, 1, 1, 2, 3]]))


def test_reliability_counts_every_forecast_once():
    p = np.linspace(0, 1, 101)
    table = reliability((p > 0.5).astype(float), p)
    assert sum(b.count for b in table) == 101
    assert sum(b.events for b in table) == 50


def test_alarms_close_together_are_one_and_a_missed_onset_has_no_lead():
    p, y = np.zeros(100), np.zeros(100)
    p[[10, 12, 20]] = 0.9  # one alarm, false
    p[55:60] = 0.9  # the second alarm, five minutes before the onset
    y[45:60] = 1.0
    found = alarms([Series(p, y, [60, 90])], 0.5, horizon_min=15, days=0.5)
    assert (found.false, found.false_per_day) == (1, 2.0)
    assert found.recall == 0.5
    assert found.leads_min == [5, 0]


def test_the_best_threshold_keeps_its_budget():
    chance = np.random.default_rng(5)
    series = [Series(chance.random(600), np.zeros(600), [300]) for _ in range(4)]
    best = best_alarms(series, false_per_day=4.0, horizon_min=15, days=1.0)
    assert best.false <= 4
    assert best_alarms(series, false_per_day=60.0, horizon_min=15, days=1.0).recall >= best.recall


def test_the_area_of_molchan_is_one_for_a_prophet_and_nothing_for_a_clock():
    p = np.zeros(500)
    p[299] = 1.0
    assert molchan([Series(p, np.zeros(500), [300])], horizon_min=1) == pytest.approx(1.0, abs=0.01)
    assert molchan([Series(np.zeros(500), np.zeros(500), [300])], horizon_min=15) == 0.0
    # A run of which nothing is graded says nothing, and does not end the report.
    none = Series(np.zeros(0), np.zeros(0), [3])
    assert molchan([Series(p, np.zeros(500), [300]), none], horizon_min=1) > 0.98


# ---------------------------------------------------------------------------------- the fit


def test_a_fit_keeps_the_signs_and_its_source_is_the_model(train):
    found = fit.model(train)
    for name, weights in zip(INPUTS, zip(*found.map.weights, strict=True), strict=True):
        assert name not in (*RISING, *HEAT) or min(weights) >= 0.0
        assert name not in FALLING or max(weights) <= 0.0
    assert found.base == fit.ORDINARY
    names: dict[str, object] = {}
    exec(fit.source(found), names)  # noqa: S102
    assert names["MODEL"] == found
    assert "causal onsets" in found.made


def test_a_fit_without_events_is_refused():
    quiet = []
    for seed in range(8):
        quiet.append(a_run(seed))
        quiet[-1].path[:] = 0.0
    with pytest.raises(TooFewPositivesError):
        fit.model(quiet)


def test_another_base_rate_moves_the_odds_and_not_the_order(train):
    before = fit.variant(train, fit.OURS)
    after = rebased(before, (0.2, 0.2, 0.2), (0.02, 0.02, 0.02))
    shift = logit(0.02) - logit(0.2)
    for old, new in zip(before.calibrations, after.calibrations, strict=True):
        for odds in (-6.0, -1.0, 0.5, 4.0):
            p, q = old.probability(odds), new.probability(odds)
            assert q < p
            if old.knots and odds not in (-1.0, 0.5):
                assert logit(q) - logit(p) == pytest.approx(shift, abs=1e-6)


def test_probabilities_of_rows_are_the_forecasters(train):
    variant = fit.variant(train, fit.OURS)
    model = Model(version="", made="", base=fit.ORDINARY, map=variant, baseline=variant)
    features = [
        Features(structural=(0.1, 0.2, 0.3), sigma_fast=2e-4, depth=0.5),
        Features(structural=(0.9, 0.2, 0.3), plumbing=0.5),
        Features(),
    ]
    found = said(variant, rows(features))
    for row, one in zip(found, features, strict=True):
        assert row == pytest.approx(Forecaster(model).forecast(0, one).map)


# ------------------------------------------------------------------------------- the report


def test_the_map_that_knows_more_scores_more(result):
    models = result["all"]["300"]["models"]
    oracle, ours = models["B8 oracle map"], models["map"]
    assert (
        oracle["pr_auc"]["value"] > ours["pr_auc"]["value"] > models["B5 no map"]["pr_auc"]["value"]
    )
    assert result["all"]["300"]["ours_less"]["B8 oracle map"]["pr_auc"]["high"] < 0.0
    assert models["B0 base rate"]["brier_skill"]["value"] == 0.0
    assert models["B0 base rate"]["lift"]["value"] == pytest.approx(1.0)


def test_intervals_hold_their_figures_and_both_markets_are_there(result):
    assert set(result["by_market"]) == {"first", "second"}
    for part in (result["all"], *result["by_market"].values()):
        for figures in part.values():
            for model in figures["models"].values():
                assert model["log_skill"]["low"] <= model["log_skill"]["value"] + 0.05
                assert model["log_skill"]["value"] - 0.05 <= model["log_skill"]["high"]
    assert msgspec.json.encode(result)
    text = skill.tables(result)
    assert "| B6 public recipe |" in text
    assert "nan" not in text


def test_runs_are_kept_and_read_again(tmp_path):
    one = a_run(5)
    saved(tmp_path / "first-5-90.npz", one)
    (again,) = runs([5], ["first"], minutes=90, directory=tmp_path)
    assert (again.labels[np.isfinite(again.labels)] == one.labels[np.isfinite(one.labels)]).all()


def test_seeds_that_fit_do_not_grade(tmp_path):
    options = argparse.Namespace(train=[1, 2], seeds=[2, 3], out=tmp_path)
    with pytest.raises(skill.OverlapError, match="choose others"):
        skill.COMMAND.run(options)


# ---------------------------------------------------------------------------- the scenarios


def staged(name="crash", **kwargs):
    given_ = {
        "scenario": name,
        "seed": 0,
        "burst_s": 80,
        "reached_s": {},
        "wrong_s": {},
        "during": False,
        "exhausted_s": None,
        "fault_s": None,
        "lowered": False,
        "first_score": 0.1,
    }
    return stages.Staged(**(given_ | kwargs))


def test_a_phase_counts_before_the_burst_only_when_it_was():
    found = stages.summary(
        [
            staged(reached_s={"watch": 20, "warning": 60, "critical": 90}, during=True),
            staged(reached_s={"watch": 85}),
            staged(burst_s=None, reached_s={"watch": 5}),
        ]
    )["crash"]
    assert (found["runs"], found["bursts"]) == (3, 2)
    assert found["before"] == {"watch": 0.5, "warning": 0.5, "critical": 0.0}
    assert found["median_lead_s"]["warning"] == 20
    assert found["cascading_during"] == 0.5
    assert found["raised"]["watch"] == 1.0


def test_a_crash_bursts_after_its_news():
    found = stages.play("crash", 4, minutes=2)
    assert found.burst_s is not None
    assert found.burst_s > 60
    assert found.fault_s is None


# -------------------------------------------------------------------------- the commands


def test_the_commands_write_what_they_found(tmp_path, monkeypatch, capsys):
    kept = tmp_path / "runs"
    kept.mkdir()
    for seed in (*range(40), *range(100, 104)):
        saved(kept / f"first-{seed}-90.npz", a_run(seed))
    told = [staged("crash", reached_s={"watch": 20}), staged("calm", burst_s=None)]
    monkeypatch.setattr(stages, "table", lambda *_, **__: told)
    out = tmp_path / "report"
    where = ["--variant", "first", "--runs", str(kept)]
    grading = ["--train", "0-39", "--seeds", "100-103", "--out", str(out)]
    assert cli.main(["backtest", "skill", *where, *grading]) == cli.OK
    assert "| crash | 1 | 1 | 100 % |" in capsys.readouterr().out
    assert msgspec.json.decode((out / "skill.json").read_bytes())["train"]["runs"] == 40
    source = tmp_path / "coefficients.py"
    assert cli.main(["backtest", "fit", *where, "--seeds", "0-39", "--out", str(source)]) == cli.OK
    assert "40 runs of 90 minutes" in source.read_text("utf-8")
    refused = ["backtest", "fit", *where, "--seeds", "0-1", "--out", str(source)]
    assert cli.main(refused) == cli.USAGE
    assert "are the least" in capsys.readouterr().err
