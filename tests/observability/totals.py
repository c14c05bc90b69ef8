"""More of what the dashboards must show at the end of each phase, by `Query.name`: to the last one of what was done.

WHOLE is of queries with rates, whose counters are then asked as they stand (`reading.counted_whole`). A round of the
workload is 14 chats: 4 are answered, one of them from memory after its first time; 1 is answered with 502; 6 are of a
blocked user, 2 have a wrong key, and 1 is of a user who may ask once an hour. 5 requests are for nothing that there is.
Of 7 tasks 4 are cancelled and 1 fails. Over a socket come 2 chats, 3 pings and 1 message of no type, and a wrong key.
There are four rounds, then six more. Series of WHOLE that are 0 in both phases are not written down.
"""

from tests.observability.expected import Exact, one


def table(labels: str, rows: dict[str, tuple[float, float]]) -> Exact:
    """`labels`: their names, in order; `rows`: by their values in that order."""
    names = labels.split()
    return {tuple(zip(names, values.split(), strict=True)): pair for values, pair in rows.items()}


REDIS_MEMORY = one(268435456, 268435456)
REDIS_MEMORY_CACHE = one(214748365, 214748365)
REQUESTS_IN_PROGRESS_BY_INSTANCE = table(
    "instance",
    {
        "atp-0": (0, 0),
        "atp-1": (0, 0),
        "atp-worker-0": (0, 0),
    },
)
SOCKETS_OF_THE_LIMIT = table(
    "instance",
    {
        "atp-0": (0.0002, 0.0002),
        "atp-1": (0.0001, 0.0001),
    },
)
INSTANCES = table(
    "instance job revision version",
    {
        "atp-0 atp unknown 0.1.0": (1, 1),
        "atp-1 atp unknown 0.1.0": (1, 1),
        "atp-bridge-0 atp-bridge unknown 0.1.0": (1, 1),
        "atp-worker-0 atp-worker unknown 0.1.0": (1, 1),
    },
)
MOST_ACTIVE_API_KEYS = table(
    "key_id",
    {
        "admin": (32, 80),
        "limited": (1, 1),
        "other": (0, 0),
        "with-sockets": (8, 20),
    },
)
CALLS_SAVED = table(
    "cache",
    {
        "agent_response": (0.097561, 0.0990099),
    },
)
REQUESTS_A_MINUTE = table(
    "http_response_status_code",
    {
        "200": (7140, 11340),
        "201": (60, 60),
        "202": (1980, 4860),
        "401": (480, 1200),
        "403": (1440, 3600),
        "404": (1200, 3000),
        "429": (180, 540),
        "502": (240, 600),
    },
)
ERRORS = one(0.0188679, 0.0238095)

SHOWN: dict[str, Exact] = {
    "atp-cache / Answers in memory / A": one(29, 71),
    "atp-cache / Memory of the cache / A": one(16037, 39263),
    "atp-cache / Memory by instance / A": table(
        "instance",
        {
            "atp-0": (9401, 22673),
            "atp-1": (2212, 5530),
            "atp-worker-0": (4424, 11060),
        },
    ),
    "atp-cache / Answers by instance / A": table(
        "instance",
        {
            "atp-0": (17, 41),
            "atp-1": (4, 10),
            "atp-worker-0": (8, 20),
        },
    ),
    "atp-cache / Redis memory / B": REDIS_MEMORY,
    "atp-resources / Redis memory / B": REDIS_MEMORY,
    "atp-tasks-models / Size of the spool / B": REDIS_MEMORY,
    "atp-cache / Redis memory / C": REDIS_MEMORY_CACHE,
    "atp-resources / Redis memory / C": REDIS_MEMORY_CACHE,
    "atp-http-slo / Requests in progress by instance / A": REQUESTS_IN_PROGRESS_BY_INSTANCE,
    "atp-limits-keys / Limits counted by each node alone / A": REQUESTS_IN_PROGRESS_BY_INSTANCE,
    "atp-tasks-models / Spooled usage rows / A": REQUESTS_IN_PROGRESS_BY_INSTANCE,
    "atp-tasks-models / Size of the spool / A": REQUESTS_IN_PROGRESS_BY_INSTANCE,
    "atp-websockets / Bytes waiting to be sent / A": REQUESTS_IN_PROGRESS_BY_INSTANCE,
    "atp-websockets / Messages waiting to be sent / A": REQUESTS_IN_PROGRESS_BY_INSTANCE,
    "atp-on-call / Targets / A": table(
        "instance job",
        {
            "atp-0 atp": (1, 1),
            "atp-1 atp": (1, 1),
            "atp-bridge-0 atp-bridge": (1, 1),
            "atp-worker-0 atp-worker": (1, 1),
            "prometheus-0 prometheus": (1, 1),
        },
    ),
    "atp-overview / Requests in progress / A": one(0, 0),
    "atp-overview / Sockets of the limit / A": SOCKETS_OF_THE_LIMIT,
    "atp-websockets / Sockets of the limit / A": SOCKETS_OF_THE_LIMIT,
    "atp-overview / Instances / A": INSTANCES,
    "atp-resources / Instances / A": INSTANCES,
    "atp-resources / Connections / B": table(
        "pool",
        {
            "postgresql": (30, 30),
        },
    ),
    "atp-resources / Callers waiting for a connection / A": table(
        "instance pool",
        {
            "atp-0 postgresql": (0, 0),
            "atp-1 postgresql": (0, 0),
            "atp-worker-0 postgresql": (0, 0),
        },
    ),
    "atp-websockets / Sockets by instance / A": table(
        "instance",
        {
            "atp-0": (2, 2),
            "atp-1": (1, 1),
            "atp-worker-0": (0, 0),
        },
    ),
    "atp-overview / Most active API keys / A": MOST_ACTIVE_API_KEYS,
    "atp-limits-keys / Most active API keys / A": MOST_ACTIVE_API_KEYS,
    "atp-online-users / Most active API keys / A": MOST_ACTIVE_API_KEYS,
}

WHOLE: dict[str, Exact] = {
    "atp-cache / Calls saved / A": CALLS_SAVED,
    "atp-cache / Calls saved over time / A": CALLS_SAVED,
    "atp-cache / Look-ups / A": table(
        "cache result",
        {
            "agent_response hit": (4, 10),
            "agent_response miss": (37, 91),
        },
    ),
    "atp-cache / Joined calls / A": {},
    "atp-cache / Evictions / A": {},
    "atp-http-slo / Unforeseen exceptions / A": {},
    "atp-http-slo / Connections cut / A": {},
    "atp-on-call / Alerts not delivered / A": {},
    "atp-on-call / Unforeseen exceptions / A": {},
    "atp-on-call / Telemetry lost / A": {},
    "atp-on-call / Telemetry lost / B": {},
    "atp-on-call / Telemetry lost / C": {},
    "atp-on-call / Telemetry lost / D": {},
    "atp-overview / Unforeseen exceptions / A": {},
    "atp-resources / Uncollectable objects / A": {},
    "atp-resources / Labels that became `other` / A": {},
    "atp-resources / Telemetry lost / A": {},
    "atp-resources / Telemetry lost / B": {},
    "atp-resources / Telemetry lost / C": {},
    "atp-resources / Telemetry lost / D": {},
    "atp-websockets / Messages dropped / A": {},
    "atp-websockets / Gaps of the bus / A": {},
    "atp-http-slo / Requests a minute / A": REQUESTS_A_MINUTE,
    "atp-limits-keys / Requests a minute / A": REQUESTS_A_MINUTE,
    "atp-overview / Requests a minute / A": REQUESTS_A_MINUTE,
    "atp-http-slo / Errors / A": ERRORS,
    "atp-on-call / Errors / A": ERRORS,
    "atp-overview / Errors / A": ERRORS,
    "atp-http-slo / Requests by route / A": table(
        "http_request_method http_route",
        {
            "DELETE /api/v1/tasks/{task_id}": (16, 40),
            "GET /api/v1/models": (4, 10),
            "GET unmatched": (20, 50),
            "POST /api/admin/blocks": (1, 1),
            "POST /api/admin/broadcast": (4, 10),
            "POST /api/v1/chat": (56, 140),
            "POST /api/v1/presence/heartbeat": (82, 98),
            "POST /api/v1/tasks": (29, 71),
        },
    ),
    "atp-http-slo / Failing routes / A": table(
        "http_response_status_code http_route",
        {
            "401 /api/v1/chat": (8, 20),
            "403 /api/v1/chat": (24, 60),
            "404 unmatched": (20, 50),
            "429 /api/v1/chat": (3, 9),
            "502 /api/v1/chat": (4, 10),
        },
    ),
    "atp-http-slo / Availability by instance / A": table(
        "instance",
        {
            "atp-0": (1, 1),
            "atp-1": (0.967213, 0.96),
        },
    ),
    "atp-limits-keys / Decisions / A": table(
        "decision policy",
        {
            "allowed admin": (5, 11),
            "allowed api": (106, 152),
            "allowed auth": (12, 30),
            "allowed chat": (58, 142),
            "limited chat": (3, 9),
        },
    ),
    "atp-limits-keys / Limited / A": table(
        "policy",
        {
            "chat": (0.0491803, 0.0596026),
        },
    ),
    "atp-limits-keys / Refused API keys / A": table(
        "reason",
        {
            "blocked": (24, 60),
            "malformed": (12, 30),
        },
    ),
    "atp-limits-keys / Refused API keys / B": one(12, 30),
    "atp-limits-keys / Blocked requests / A": table(
        "reason",
        {
            "user": (24, 60),
        },
    ),
    "atp-overview / Tokens a second / A": table(
        "token_type",
        {
            "input": (203, 497),
            "output": (116, 284),
        },
    ),
    "atp-tasks-models / Tasks and callbacks / A": table(
        "outcome task",
        {
            "cancelled chat": (16, 40),
            "done chat": (8, 20),
            "failed chat": (4, 10),
        },
    ),
    "atp-tasks-models / Failed tasks / A": table(
        "task",
        {
            "chat": (4, 10),
        },
    ),
    "atp-tasks-models / Model calls / A": table(
        "model operation provider",
        {
            "good chat scripted": (29, 71),
            "overloaded chat scripted": (4, 10),
            "refuses chat scripted": (4, 10),
        },
    ),
    "atp-tasks-models / Failed model calls / A": table(
        "error_type model provider",
        {
            "upstream-error overloaded scripted": (1, 1),
            "upstream-error refuses scripted": (1, 1),
        },
    ),
    "atp-tasks-models / Failed model calls / B": table(
        "model provider",
        {
            "overloaded scripted": (1, 1),
            "refuses scripted": (1, 1),
        },
    ),
    "atp-tasks-models / Tokens by model / A": table(
        "model token_type",
        {
            "good input": (203, 497),
            "good output": (116, 284),
        },
    ),
    "atp-tasks-models / Usage rows / A": table(
        "outcome",
        {
            "stored": (41, 101),
        },
    ),
    "atp-websockets / Handshakes / A": table(
        "result",
        {
            "accepted": (4, 4),
            "malformed": (4, 10),
        },
    ),
    "atp-websockets / Disconnects / A": table(
        "code initiator",
        {
            "1000 client": (1, 1),
        },
    ),
    "atp-websockets / Messages in / A": table(
        "type",
        {
            "chat": (8, 20),
            "invalid": (4, 10),
            "ping": (12, 30),
        },
    ),
    "atp-websockets / Messages out / A": table(
        "type",
        {
            "answer": (8, 20),
            "broadcast": (12, 30),
            "delta": (32, 80),
            "done": (8, 20),
            "error": (4, 10),
            "pong": (12, 30),
            "ready": (4, 4),
        },
    ),
    "atp-websockets / Bytes / A": table(
        "direction",
        {
            "in": (1010, 2528),
            "out": (8421, 20079),
        },
    ),
    "atp-websockets / Bus between nodes / A": table(
        "direction",
        {
            "published": (74, 182),
            "received": (222, 546),
        },
    ),
}
