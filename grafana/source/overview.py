"""Overview: what the risk is now, why, where the fuel is, and whether to believe it."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.source.page import ASSET, choice, page
from grafana.source.panels import (
    PHASES,
    SCORE_BANDS,
    UNLESS_ZERO,
    Panel,
    bars,
    distances,
    limit,
    lines,
    numbers,
    rows,
    states,
)

BOTH = "{{asset}} {{direction}}"


def overview() -> model.Dashboard:
    """All assets on one page; the rows below the first two show the chosen one."""
    return page(
        "cascade-overview",
        "Cascade overview",
        "Liquidation cascade risk of every asset, its reasons, and what it is worth.",
        [
            ("What is the risk now?", _risk()),
            ("Why?", _reasons()),
            ("Where is the fuel of $asset, and can the book take it?", _fuel()),
            ("What is the market of $asset doing?", _market()),
            ("Can this be believed right now?", _trust()),
        ],
        variables=[choice("asset", "Asset", ASSET)],
    )


def _risk() -> list[Panel]:
    return [
        bars(
            "Cascade risk now",
            "Score from 0 to 1 of each asset and direction. An asset that is missing here is "
            "unknown, not calm: see the last row.",
            "percentunit",
            ("sort_desc(cascade_risk_score_ratio)", BOTH),
            steps=SCORE_BANDS,
            ceiling=1.0,
        ),
        states(
            "Phase of each asset and direction",
            "The engine's phases with its hysteresis; CascadeRisk alerts fire on them. A gap is a "
            "time in which the engine abstained.",
            ("asset_direction:cascade_phase:level", BOTH),
            PHASES,
            span=16,
        ),
        lines(
            "Probability of a cascade within 15 minutes",
            "Calibrated on the forecast's own record. The dashed line is where "
            "CascadeProbabilityHigh fires.",
            "percentunit",
            ('cascade_probability_ratio{horizon="15m"}', BOTH),
            steps=limit("CascadeProbabilityHigh"),
        ),
        lines(
            "Critical shock: the least move that would feed itself",
            "In normal moves of 15 minutes. No line means that no shock within reach would start a "
            "cascade. Below the dashed line, at a loop gain of 6, CascadeCriticalShockNear fires.",
            "none",
            ("asset_direction:cascade_critical_shock_moves:ratio", BOTH),
            steps=limit("CascadeCriticalShockNear"),
        ),
        rows(
            "Every asset in figures",
            "The present figures of each asset and direction. A dash is unknown, or, for the "
            "critical shock, none within reach.",
            ("max by (asset, direction) (cascade_risk_score_ratio)", "Score", "percentunit"),
            *(
                (
                    f'max by (asset, direction) (cascade_probability_ratio{{horizon="{horizon}"}})',
                    f"Within {horizon}",
                    "percentunit",
                )
                for horizon in ("5m", "15m", "1h")
            ),
            (
                "min by (asset, direction) (cascade_critical_shock_ratio)",
                "Critical shock",
                "percentunit",
            ),
            (
                "min by (asset, direction) (asset_direction:cascade_critical_shock_moves:ratio)",
                "In normal moves",
                "none",
            ),
            ("max by (asset, direction) (cascade_loop_gain_ratio)", "Loop gain", "none"),
            (
                "max by (asset, direction) (cascade_expected_liquidated_usd)",
                "Expected liquidated",
                "currencyUSD",
            ),
            (
                "max by (asset, direction) (cascade_expected_jump_ratio)",
                "Expected jump",
                "percentunit",
            ),
            labels=("asset", "direction"),
            limits={
                "Score": SCORE_BANDS,
                "Within 15m": limit("CascadeProbabilityHigh"),
                "In normal moves": limit("CascadeCriticalShockNear"),
                "Loop gain": limit("CascadeLoopGainHigh"),
            },
        ),
    ]


def _reasons() -> list[Panel]:
    return [
        *(
            bars(
                f"What drives the risk of $asset {direction}",
                "Components of the score, 0 to 1, the strongest first.",
                "percentunit",
                (
                    (
                        "sort_desc(max by (component) (cascade_component_ratio"
                        f'{{asset="$asset",direction="{direction}"}}))'
                    ),
                    "{{component}}",
                ),
                ceiling=1.0,
            )
            for direction in ("down", "up")
        ),
        lines(
            "Loop gain: forced move over the move that forced it",
            "Maximum along the path. Above 1 a move feeds itself, within the error of map and "
            "depth; above the dashed line CascadeLoopGainHigh fires.",
            "none",
            ("cascade_loop_gain_ratio", BOTH),
            steps=limit("CascadeLoopGainHigh"),
            span=8,
        ),
    ]


def _fuel() -> list[Panel]:
    return [
        *(
            distances(
                f"Forced orders by distance {word}, $asset",
                f"Estimated USD of {side} that would be force-closed, by distance {word} the mark.",
                f'cascade_at_risk_usd{{asset="$asset",direction="{direction}"}}',
            )
            for direction, word, side in (("down", "below", "longs"), ("up", "above", "shorts"))
        ),
        lines(
            "Forced orders over resting orders within 2 %",
            "Above 1 the book could not take what a move of 2 % would force into it.",
            "none",
            ('asset_direction:cascade_fuel_over_depth_2pct:ratio{asset="$asset"}', "{{direction}}"),
            span=8,
        ),
        lines(
            "Depth and forced orders within 2 %, $asset",
            "Resting orders on the side a shock would meet, and what it would force. Depth is a "
            "lower bound where the venues show no more.",
            "currencyUSD",
            ('cascade_depth_usd{asset="$asset",band="0.02"}', "depth {{direction}}"),
            ('cascade_at_risk_usd{asset="$asset",band="0.02"}', "forced {{direction}}"),
            span=8,
        ),
        lines(
            "Depth within 1 % over its 7-day normal",
            "1 is normal; a book that thins before news is a warning of its own.",
            "percentunit",
            ('cascade_depth_normal_ratio{asset="$asset"}', "{{direction}}"),
            span=8,
        ),
    ]


def _market() -> list[Panel]:
    return [
        lines(
            "Funding per 8 hours, $asset",
            "Positive when longs pay. Crowded longs pay much.",
            "percentunit",
            ('cascade_funding_rate_ratio{asset="$asset"}', "{{venue}}"),
            span=8,
            floor=None,
        ),
        lines(
            "Open interest, $asset",
            "One-sided, in USD, by venue.",
            "currencyUSD",
            ('sum by (venue) (cascade_open_interest_usd{asset="$asset"})', "{{venue}}"),
            span=8,
            stacked=True,
        ),
        lines(
            "Liquidations per minute, $asset",
            "Forced closes that venues reported, by the side of the position. Some venues report "
            "a sample only: a lower bound.",
            "currencyUSD",
            (
                (
                    "60 * sum by (side) (rate(cascade_liquidations_usd_total"
                    '{asset="$asset"}[$__rate_interval]))'
                ),
                "{{side}}",
            ),
            span=8,
            bars=True,
        ),
    ]


def _trust() -> list[Panel]:
    return [
        numbers(
            "Directions without a score",
            "Assets and directions for which the engine abstains: their risk is unknown. "
            "CascadeAbstaining fires on them.",
            "none",
            ("sum by (asset) (cascade_abstaining)", "{{asset}}"),
            steps=limit("CascadeAbstaining"),
        ),
        lines(
            "Coverage, confidence and quality, $asset",
            "Share of open interest that is heard, trust in the map, and freshness of the inputs.",
            "percentunit",
            ('cascade_coverage_ratio{asset="$asset"}', "coverage"),
            ('cascade_confidence_ratio{asset="$asset"}', "confidence in the forecast"),
            ('cascade_quality_ratio{asset="$asset"}', "quality"),
            ceiling=1.0,
            span=10,
        ),
        numbers(
            "Streams silent and books not true",
            "What should be heard and is not; CascadeFeedSilent and CascadeBookUnsynced fire on "
            "them after a minute.",
            "none",
            ("sum(cascade_stream_silent)", "streams silent"),
            ("sum(1 - cascade_book_synced)", "books not true"),
            steps=UNLESS_ZERO,
            span=4,
        ),
        numbers(
            "Alerts firing",
            "Of this project, the watchdog left out.",
            "none",
            (
                (
                    'sum(ALERTS{alertname=~"Cascade.*",alertname!="CascadeWatchdog",'
                    'alertstate="firing"}) or vector(0)'
                ),
                "alerts",
            ),
            steps=UNLESS_ZERO,
            span=4,
        ),
    ]
