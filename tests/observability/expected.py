"""What the dashboards must show at the end of each phase of `workload.py`, by `Query.name`.

First phase: 42 users, three sockets (a fourth was open before), four rounds. Second: 8 more users, six more rounds.
"""

from typing import Any

Labels = tuple[tuple[str, str], ...]
# By a series' labels, their values in the first phase and in the second.
Exact = dict[Labels, tuple[float, float]]


def by(label: str, **values: tuple[float, float]) -> Exact:
    return {((label, value),): pair for value, pair in values.items()}


def one(first: float, second: float) -> Exact:
    return {(): (first, second)}


ONLINE = one(42, 50)
PEAKS = by("window", day=(42, 50), all_time=(42, 50))
ACTIVE = by("window", day=(42, 50), week=(42, 50), month=(42, 50))
SESSIONS = by("device", mobile=(22, 30), tablet=(10, 10), desktop=(9, 9), unknown=(3, 3))
SOCKETS = by("device", mobile=(2, 2), desktop=(1, 1), tablet=(0, 0), unknown=(0, 0))
SOCKET_PEAKS = by("window", day=(4, 4), all_time=(4, 4))
BLOCKED = by("reason", user=(1, 1), key=(0, 0), address=(0, 0))
QUEUES: Exact = {
    (("queue", queue), ("state", state)): (tasks, tasks)
    for queue, state, tasks in (
        ("chat", "ready", 0),
        ("chat", "scheduled", 1),
        ("chat", "running", 0),
        ("callbacks", "ready", 0),
    )
}
BOTH_UP = by("dependency", postgresql=(1, 1), redis=(1, 1))
NONE_DEGRADED: Exact = {(("dependency", "redis"), ("mode", "memory")): (0, 0)}
NOTHING_LOST: Exact = {
    (("outcome", outcome), ("signal", signal)): (0, 0)
    for signal, outcomes in {
        **dict.fromkeys(("logs", "traces", "errors"), ("dropped",)),
        "alerts": ("failed", "refused", "unset"),
        "check-ins": ("failed", "unset"),
        "notifications": ("refused",),
    }.items()
    for outcome in outcomes
}
OBJECTIVES = by(
    "slo",
    availability=(0.999, 0.999),
    latency=(0.99, 0.99),
    ws_delivery=(0.995, 0.995),
    presence_freshness=(0.999,) * 2,
)

EXACT: dict[str, Exact] = {
    "atp-overview / Online users / A": ONLINE,
    "atp-overview / Peak of online users / A": PEAKS,
    "atp-overview / Active sessions / A": one(44, 52),
    "atp-overview / Sockets / A": one(3, 3),
    "atp-overview / Blocked / A": BLOCKED,
    "atp-overview / Online users over time / A": ONLINE,
    "atp-overview / Online users over time / B": ONLINE,
    "atp-overview / Sessions by device / A": SESSIONS,
    "atp-overview / WebSocket connections / A": SOCKETS,
    "atp-overview / Redis memory / B": one(268_435_456, 268_435_456),
    "atp-overview / Redis memory / C": one(214_748_365, 214_748_365),
    "atp-overview / Queues / A": QUEUES,
    "atp-overview / Oldest waiting task / A": by("queue", chat=(0, 0)),
    "atp-overview / Nodes in the fleet / A": one(2, 2),
    "atp-overview / Instances up / A": one(1, 1),
    "atp-overview / PostgreSQL, Redis / A": BOTH_UP,
    "atp-overview / Degraded now / A": one(0, 0),
    "atp-online-users / Online users / A": ONLINE,
    "atp-online-users / Peak of online users / A": PEAKS,
    "atp-online-users / Active sessions / A": one(44, 52),
    "atp-online-users / Active users / A": ACTIVE,
    "atp-online-users / Blocked / A": BLOCKED,
    "atp-online-users / Nodes / A": one(2, 2),
    "atp-online-users / Peak of sockets / A": SOCKET_PEAKS,
    "atp-online-users / Online users over time / A": ONLINE,
    "atp-online-users / Online users over time / B": ONLINE,
    "atp-online-users / Sessions over time / A": SESSIONS,
    "atp-online-users / Sessions by device / A": SESSIONS,
    "atp-online-users / WebSocket connections / A": SOCKETS,
    "atp-online-users / Active users over time / A": ACTIVE,
    "atp-online-users / Blocks over time / A": BLOCKED,
    "atp-online-users / Drift of the counters / A": one(0, 0),
    "atp-http-slo / Objectives / A": OBJECTIVES,
    "atp-limits-keys / Blocked / A": BLOCKED,
    "atp-on-call / Dependencies / A": BOTH_UP,
    "atp-on-call / Degraded / A": NONE_DEGRADED,
    "atp-on-call / Alarm chain / A": one(1, 1),
    "atp-on-call / Did not get through / A": NOTHING_LOST,
    "atp-resources / Dependencies / A": BOTH_UP,
    "atp-resources / Degraded / A": NONE_DEGRADED,
    "atp-resources / Instances up / A": one(1, 1),
    "atp-tasks-models / Queues / A": QUEUES,
    "atp-tasks-models / Oldest waiting task / A": by("queue", chat=(0, 0)),
    "atp-tasks-models / Tokens of a call / A": {
        (("model", "good"), ("token_type", "input")): (7, 7),
        (("model", "good"), ("token_type", "output")): (4, 4),
    },
    "atp-websockets / WebSocket connections / A": SOCKETS,
    "atp-websockets / Sockets by instance / B": one(10_000, 10_000),
    "atp-websockets / Refused handshakes / A": one(1, 1),
    "atp-websockets / Peaks of sockets / A": SOCKET_PEAKS,
    "atp-websockets / Delivered late / A": one(0, 0),
}

SPENT = ([(0.435,)], [(1.065,)])
TABLES: dict[str, tuple[list[Any], list[Any]]] = {
    "atp-overview / Spend / A": SPENT,
    "atp-limits-keys / Spend / A": SPENT,
    "atp-tasks-models / Spend / A": SPENT,
    # requests, errors, tokens, US dollars
    "atp-limits-keys / Dearest agents / A": ([("reasoning", 41, 8, 319, 0.435)], [("reasoning", 101, 20, 781, 1.065)]),
    "atp-limits-keys / Dearest models / A": (
        [("good", 33, 0, 319, 0.435), ("overloaded", 4, 4, 0, 0.0), ("refuses", 4, 4, 0, 0.0)],
        [("good", 81, 0, 781, 1.065), ("overloaded", 10, 10, 0, 0.0), ("refuses", 10, 10, 0, 0.0)],
    ),
}

# What shows nothing unless something is wrong.
QUIET = {"atp-on-call / Firing alerts / A", "atp-overview / Firing alerts / A"}
# What is asked while something is.
BROKEN = {
    "atp-on-call / Alerts firing / A",
    "atp-on-call / Targets / A",
    "atp-overview / Instances up / A",
    "atp-resources / Degraded / A",
    "atp-resources / Dependencies / A",
}

# What the second phase leaves as it was, since it has no more of it.
CONSTANT = {
    *(name for name, exact in EXACT.items() if all(first == second for first, second in exact.values())),
    "atp-http-slo / Error budget left / A",
    "atp-overview / Requests in progress / A",
    "atp-overview / Instances / A",
    "atp-resources / Instances / A",
    "atp-on-call / Alerts not delivered / A",
    "atp-on-call / Alerts firing / A",
    "atp-overview / Alerts firing / A",
    "atp-websockets / Lifetime of sockets / A",
    "atp-websockets / Lifetime of sockets / B",
}
