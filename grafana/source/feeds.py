"""Feeds and books: what is heard, and whether the books are true."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.source.page import page
from grafana.source.panels import UNLESS_ZERO, Panel, lines, rows, states

OPEN = (("closed", "red"), ("open", "green"))
TRUE = (("not true", "red"), ("true", "green"))
SILENT = (("heard", "green"), ("silent", "orange"))
FULL = (("lower bound", "yellow"), ("complete", "green"))


def feeds() -> model.Dashboard:
    """From the socket to the book."""
    return page(
        "cascade-feeds",
        "Cascade feeds and books",
        "What is heard from each venue, and whether its books are true.",
        [
            ("Is every venue heard?", _heard()),
            ("Are the books true?", _books()),
            ("What comes in, and how late?", _flow()),
            ("What goes wrong?", _faults()),
        ],
    )


def _heard() -> list[Panel]:
    return [
        states(
            "Sockets open",
            "A venue may need several. A gap is a time in which the monitor was not scraped.",
            ("cascade_feed_connected", "{{feed}}"),
            OPEN,
        ),
        states(
            "Streams silent, by venue and channel",
            "Quiet beyond what the stream may be, or not subscribed. CascadeFeedSilent fires after "
            "a minute.",
            ("max by (venue, channel) (cascade_stream_silent)", "{{venue}} {{channel}}"),
            SILENT,
        ),
        lines(
            "Silence of each channel",
            "Time since the channel was last heard, over all its symbols. Liquidations may be "
            "quiet for long.",
            "s",
            ("venue_channel:cascade_feed_silence_seconds:time", "{{venue}} {{channel}}"),
        ),
        rows(
            "Silent streams, by symbol",
            "Empty when every stream that must not be quiet is heard.",
            (
                "sum by (venue, symbol, channel) (cascade_stream_silent) > 0",
                "Silent",
                "none",
            ),
            labels=("venue", "symbol", "channel"),
            span=12,
        ),
    ]


def _books() -> list[Panel]:
    return [
        states(
            "Books true",
            "A book that is not true is not used. CascadeBookUnsynced fires after a minute.",
            ("cascade_book_synced", "{{venue}} {{symbol}}"),
            TRUE,
        ),
        states(
            "Depth within 5 % complete",
            "Where it is not, depth is a lower bound: a book is missing or shows no more.",
            ('cascade_depth_complete{band="0.05"}', "{{asset}} {{direction}}"),
            FULL,
        ),
        lines(
            "Sequence gaps per minute",
            "Times a book lost its sequence or contradicted itself.",
            "none",
            (
                "60 * sum by (venue) (rate(cascade_book_gaps_total[$__rate_interval]))",
                "{{venue}}",
            ),
            steps=UNLESS_ZERO,
        ),
        lines(
            "Books made true again per minute",
            "Should follow the gaps.",
            "none",
            (
                "60 * sum by (venue) (rate(cascade_book_resyncs_total[$__rate_interval]))",
                "{{venue}}",
            ),
        ),
    ]


def _flow() -> list[Panel]:
    return [
        lines(
            "Messages used per second",
            "Of subscribed streams, by venue.",
            "msg/s",
            (
                "sum by (venue) (rate(cascade_feed_messages_total[$__rate_interval]))",
                "{{venue}}",
            ),
            span=8,
        ),
        lines(
            "Bytes received per second",
            "Payload of websocket messages, by venue.",
            "Bps",
            ("sum by (venue) (rate(cascade_feed_bytes_total[$__rate_interval]))", "{{venue}}"),
            span=8,
        ),
        lines(
            "Delay of trades and marks, 99th percentile",
            "Receive time less the venue's own, over 5 minutes. It holds the difference of the "
            "clocks, too.",
            "s",
            ("venue:cascade_feed_delay_seconds:p99_rate5m", "{{venue}}"),
            span=8,
        ),
    ]


def _faults() -> list[Panel]:
    return [
        lines(
            "Connections lost per minute",
            "By venue and reason; `lifetime` and `asked` are our own doing.",
            "none",
            (
                "60 * sum by (venue, reason) (rate(cascade_feed_losses_total[$__rate_interval]))",
                "{{venue}} {{reason}}",
            ),
            span=8,
        ),
        lines(
            "Attempts to connect that failed per minute",
            "By venue and reason.",
            "none",
            (
                (
                    "60 * sum by (venue, reason) "
                    "(rate(cascade_feed_connect_failures_total[$__rate_interval]))"
                ),
                "{{venue}} {{reason}}",
            ),
            steps=UNLESS_ZERO,
            span=8,
        ),
        lines(
            "Messages refused per minute",
            "By the codec or by the book, with the reason.",
            "none",
            (
                (
                    "60 * sum by (venue, reason) "
                    "(rate(cascade_feed_decode_errors_total[$__rate_interval]))"
                ),
                "{{venue}} {{reason}}",
            ),
            steps=UNLESS_ZERO,
            span=8,
        ),
        lines(
            "HTTP answers per minute",
            "By venue and class of status.",
            "none",
            (
                "60 * sum by (venue, status) (rate(cascade_http_answers_total[$__rate_interval]))",
                "{{venue}} {{status}}",
            ),
            span=8,
        ),
        lines(
            "Pauses that a venue asked for per hour",
            "429 and 418 are for our rate, 403 and 451 for our address.",
            "none",
            (
                "3600 * sum by (venue, status) (rate(cascade_http_pauses_total[$__rate_interval]))",
                "{{venue}} {{status}}",
            ),
            steps=UNLESS_ZERO,
            span=8,
        ),
        lines(
            "Messages dated after their receipt per minute",
            "One of the two clocks is wrong.",
            "none",
            (
                "60 * sum by (venue) (rate(cascade_feed_clock_skew_total[$__rate_interval]))",
                "{{venue}}",
            ),
            steps=UNLESS_ZERO,
            span=8,
        ),
    ]
