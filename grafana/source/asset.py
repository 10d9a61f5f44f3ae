"""Asset: everything that is known about one asset."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.source.page import ASSET, choice, page
from grafana.source.panels import PHASES, SCORE_BANDS, Panel, distances, limit, lines, states

OF = 'asset="$asset"'
WAYS = ("down", "up")


def asset() -> model.Dashboard:
    """One asset, chosen at the top."""
    return page(
        "cascade-asset",
        "Cascade asset",
        "Everything that is known about one asset.",
        [
            ("How likely is a cascade of $asset?", _risk()),
            ("How would it run?", _course()),
            ("Why?", _reasons()),
            ("Where is the fuel?", _fuel()),
            ("What would stop it?", _depth()),
            ("What is the market doing?", _market()),
            ("What is this worth?", _trust()),
        ],
        variables=[choice("asset", "Asset", ASSET)],
    )


def _risk() -> list[Panel]:
    return [
        lines(
            "Cascade risk, $asset",
            "Score from 0 to 1; absent while the engine abstains. The lines are the bands.",
            "percentunit",
            (f"cascade_risk_score_ratio{{{OF}}}", "{{direction}}"),
            steps=SCORE_BANDS,
            ceiling=1.0,
        ),
        states(
            "Phase, $asset",
            "The engine's phases with its hysteresis. A gap is a time in which it abstained.",
            (f"asset_direction:cascade_phase:level{{{OF}}}", "{{direction}}"),
            PHASES,
        ),
        *(
            lines(
                f"Probability of a cascade {way}, $asset",
                "By horizon, and what is usual for the asset. CascadeProbabilityHigh watches the "
                "horizon of 15 minutes.",
                "percentunit",
                (f'cascade_probability_ratio{{{OF},direction="{way}"}}', "{{horizon}}"),
                (
                    f'cascade_baseline_probability_ratio{{{OF},direction="{way}"}}',
                    "{{horizon}} usual",
                ),
                steps=limit("CascadeProbabilityHigh"),
            )
            for way in WAYS
        ),
        lines(
            "Probability over what is usual, $asset",
            "1 is usual for the asset and horizon.",
            "none",
            (
                f"asset_direction_horizon:cascade_probability_over_baseline:ratio{{{OF}}}",
                "{{direction}} {{horizon}}",
            ),
            span=24,
        ),
    ]


def _course() -> list[Panel]:
    return [
        lines(
            "Critical shock, $asset",
            "Distance from the mark of the least move that would feed itself; no line means none "
            "within reach.",
            "percentunit",
            (f"cascade_critical_shock_ratio{{{OF}}}", "{{direction}}"),
            span=6,
        ),
        lines(
            "Critical shock in normal moves of 15 minutes, $asset",
            "Below the dashed line, at a loop gain of 6, CascadeCriticalShockNear fires.",
            "none",
            (f"asset_direction:cascade_critical_shock_moves:ratio{{{OF}}}", "{{direction}}"),
            steps=limit("CascadeCriticalShockNear"),
            span=6,
        ),
        lines(
            "Orders that would make the critical shock, $asset",
            "USD of market orders that would move the price as far.",
            "currencyUSD",
            (f"cascade_critical_shock_usd{{{OF}}}", "{{direction}}"),
            span=6,
        ),
        lines(
            "Loop gain, $asset",
            "Forced move over the move that forced it, at its maximum along the path. Above the "
            "dashed line CascadeLoopGainHigh fires.",
            "none",
            (f"cascade_loop_gain_ratio{{{OF}}}", "{{direction}}"),
            steps=limit("CascadeLoopGainHigh"),
            span=6,
        ),
        lines(
            "Amplification, $asset",
            "Final move over the shock that started it.",
            "none",
            (f"cascade_amplification_ratio{{{OF}}}", "{{direction}}"),
            span=8,
        ),
        lines(
            "Expected jump, $asset",
            "How far the price would move in all.",
            "percentunit",
            (f"cascade_expected_jump_ratio{{{OF}}}", "{{direction}}"),
            span=8,
        ),
        lines(
            "Expected liquidated, $asset",
            "USD that the cascade would force-close.",
            "currencyUSD",
            (f"cascade_expected_liquidated_usd{{{OF}}}", "{{direction}}"),
            span=8,
        ),
    ]


def _reasons() -> list[Panel]:
    return [
        lines(
            f"Components of the score {way}, $asset",
            "Each from 0 to 1.",
            "percentunit",
            (f'cascade_component_ratio{{{OF},direction="{way}"}}', "{{component}}"),
            ceiling=1.0,
        )
        for way in WAYS
    ]


def _fuel() -> list[Panel]:
    return [
        *(
            distances(
                f"Forced orders by distance {word}, $asset",
                f"Estimated USD of {side} that would be force-closed, by distance {word} the mark.",
                f'cascade_at_risk_usd{{{OF},direction="{way}"}}',
            )
            for way, word, side in (("down", "below", "longs"), ("up", "above", "shorts"))
        ),
        *(
            lines(
                f"Forced orders up to a distance {word}, $asset",
                "Cumulative from the mark.",
                "currencyUSD",
                (f'cascade_at_risk_usd{{{OF},direction="{way}"}}', "{{band}}"),
                span=8,
            )
            for way, word in (("down", "below"), ("up", "above"))
        ),
        lines(
            "Liquidations observed over expected, $asset",
            "In bands that the price has swept; 1 means that the map was right, at least this much "
            "where it expected less than 40 prints.",
            "none",
            (f"cascade_map_print_ratio{{{OF}}}", "{{direction}}"),
            span=8,
        ),
    ]


def _depth() -> list[Panel]:
    return [
        *(
            lines(
                f"Depth {word} the price, $asset",
                "Resting orders within each band of the mid price, over all true books; a lower "
                "bound where a venue shows no more.",
                "currencyUSD",
                (f'cascade_depth_usd{{{OF},direction="{way}"}}', "{{band}}"),
            )
            for way, word in (("down", "below"), ("up", "above"))
        ),
        lines(
            "Depth within 1 % over its 7-day normal, $asset",
            "1 is normal.",
            "percentunit",
            (f"cascade_depth_normal_ratio{{{OF}}}", "{{direction}}"),
        ),
        lines(
            "Forced orders over resting orders within 2 %, $asset",
            "Above 1 the book could not take what a move of 2 % would force into it.",
            "none",
            (f"asset_direction:cascade_fuel_over_depth_2pct:ratio{{{OF}}}", "{{direction}}"),
        ),
    ]


def _market() -> list[Panel]:
    return [
        lines(
            "Mark price, $asset",
            "Of one unit of the asset, by venue.",
            "currencyUSD",
            (f"cascade_mark_price_usd{{{OF}}}", "{{venue}}"),
            floor=None,
            span=8,
        ),
        lines(
            "Basis: mark over index, less one, $asset",
            "By venue.",
            "percentunit",
            (f"cascade_basis_ratio{{{OF}}}", "{{venue}}"),
            floor=None,
            span=8,
        ),
        lines(
            "Realised volatility, $asset",
            "From one-second returns over the horizon, not annualised; the mean of the venues.",
            "percentunit",
            (f"avg by (horizon) (cascade_volatility_ratio{{{OF}}})", "{{horizon}}"),
            span=8,
        ),
        lines(
            "Funding per 8 hours, $asset",
            "Positive when longs pay.",
            "percentunit",
            (f"cascade_funding_rate_ratio{{{OF}}}", "{{venue}}"),
            floor=None,
            span=8,
        ),
        lines(
            "Open interest, $asset",
            "One-sided, in USD, by venue.",
            "currencyUSD",
            (f"sum by (venue) (cascade_open_interest_usd{{{OF}}})", "{{venue}}"),
            stacked=True,
            span=8,
        ),
        lines(
            "Liquidations per minute, $asset",
            "By venue and side of the position.",
            "currencyUSD",
            (
                (
                    "60 * sum by (venue, side) "
                    f"(rate(cascade_liquidations_usd_total{{{OF}}}[$__rate_interval]))"
                ),
                "{{venue}} {{side}}",
            ),
            bars=True,
            span=8,
        ),
    ]


def _trust() -> list[Panel]:
    return [
        lines(
            "Coverage, confidence and quality, $asset",
            "Share of open interest that is heard, trust in the map, freshness of the inputs.",
            "percentunit",
            (f"cascade_coverage_ratio{{{OF}}}", "coverage"),
            (f"cascade_confidence_ratio{{{OF}}}", "confidence in the forecast"),
            (f"cascade_quality_ratio{{{OF}}}", "quality"),
            ceiling=1.0,
            span=8,
        ),
        lines(
            "Brier skill, $asset",
            "Of the resolved forecasts against what is usual; below 0 the forecast is worse than "
            "its baseline.",
            "percentunit",
            (
                f"cascade_forecast_brier_skill_ratio{{{OF}}}",
                "{{direction}} {{horizon}}",
            ),
            floor=None,
            span=8,
        ),
        lines(
            "Alert events per hour, $asset",
            "What the engine raised, changed and cleared.",
            "none",
            (
                (
                    "3600 * sum by (direction, phase) "
                    f"(rate(cascade_alerts_total{{{OF}}}[$__rate_interval]))"
                ),
                "{{direction}} {{phase}}",
            ),
            bars=True,
            span=8,
        ),
    ]
