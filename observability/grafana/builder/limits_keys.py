"""Who is limited, refused and blocked, and by what; which keys, users and agents cost most."""

from observability.grafana.builder import limits, money, shared
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import TRAFFIC, NoLimits, above
from observability.grafana.builder.panels import Panel, lines
from observability.grafana.builder.query import Q, counted, held, quantile, share

DECISIONS = "atp_ratelimit_decisions_total"


def board() -> Board:
    it = Board("atp-limits-keys", "ATP · Limits & keys", "Rate limits, refused keys, blocks, costs.", acts=True)
    it.row("Rate limits", [_decisions(), _limited(), _check()])
    it.row("Refused", [_auth(), _blocked(), shared.requests_per_minute()])
    it.row("Keys", [shared.top_keys(12), shared.blocked_now(6), money.spend(6)], [_without_redis(24)])
    it.row(
        "Costs",
        [
            money.top_keys(12),
            money.top("Dearest users", "The 20 users that cost most in this time range.", "user_id", "User", width=12),
        ],
        [
            money.top("Dearest agents", "The 20 agents that cost most in this time range.", "agent", "Agent", width=12),
            money.top("Dearest models", "The 20 models that cost most in this time range.", "model", "Model", width=12),
        ],
    )
    it.row("Administration", [shared.acts(24)])
    return it


def _decisions() -> Panel:
    return lines(
        "Decisions",
        "Checks of a rate limit a second, by policy.",
        "cps",
        TRAFFIC,
        Q(counted(DECISIONS, by="policy, decision"), "{{policy}} {{decision}}"),
        stacked=True,
    )


def _limited() -> Panel:
    return lines(
        "Limited",
        "Share of the checks that refused, by policy. AtpLimitedRatioHigh has this limit.",
        "percentunit",
        above(limits.LIMITED_HIGH),
        Q(share(counted(DECISIONS, 'decision="limited"', by="policy"), counted(DECISIONS, by="policy")), "{{policy}}"),
        empty="no requests",
    )


def _check() -> Panel:
    return lines(
        "Time to check a limit",
        "A round trip to Redis, shared by many, or none.",
        "s",
        above(0.05, 0.01),
        Q(quantile(0.5, "atp_ratelimit_check_duration_seconds"), "p50"),
        Q(quantile(0.99, "atp_ratelimit_check_duration_seconds"), "p99"),
        empty="no requests",
    )


def _auth() -> Panel:
    return lines(
        "Refused API keys",
        "Requests and sockets refused for their key, by reason. AtpAuthFailureSpike has this limit, for all together "
        "but missing (scanners) and scope (good keys).",
        "cps",
        above(limits.BAD_KEYS),
        Q(counted("atp_auth_failures_total", by="reason"), "{{reason}}"),
        Q(counted("atp_auth_failures_total", 'reason!~"missing|scope|blocked"'), "bad keys, together"),
        empty="none refused",
    )


def _blocked() -> Panel:
    return lines(
        "Blocked requests",
        "Requests refused since their key, user or address is blocked.",
        "cps",
        NoLimits("a block is an administrator's decision"),
        Q(counted("atp_blocked_requests_total", by="reason"), "{{reason}}"),
        empty="none refused",
    )


def _without_redis(width: int) -> Panel:
    return lines(
        "Limits counted by each node alone",
        "1 while an instance counts its limits in memory, with its part of them. AtpRateLimiterDegraded fires.",
        "short",
        limits.ANY,
        Q(held("atp_degraded", 'dependency="redis"', by="instance", how="max"), "{{instance}}"),
        width=width,
    )
