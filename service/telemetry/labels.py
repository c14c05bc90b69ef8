"""The buckets of the histograms, the closed sets of label values, and how many of the open ones are kept apart."""

# The SLO thresholds 0.25 s and 0.5 s are bucket edges, so that the SLO is counted and not interpolated.
LATENCY_S = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0)
# Those of many label sets have few: each bucket is a series of each.
HTTP_S = (0.01, 0.05, 0.25, 0.5, 1.0, 2.5, 10.0)
DB_S = (0.001, 0.005, 0.05, 0.5)
MODEL_LATENCY_S = (0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
# A limit is checked in a round trip to Redis, or in none.
LIMIT_CHECK_S = (0.0001, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.5)
TASK_WAIT_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
TASK_RUN_S = (0.05, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0)
WS_LIFE_S = (1, 10, 60, 300, 1800, 3600, 14_400, 86_400)
TOKENS = (16, 64, 256, 1024, 4096, 16384, 131_072)

AUTH_FAILURES = (
    "missing",
    "malformed",
    "unknown",
    "revoked",
    "expired",
    "inactive_user",
    "scope",
    "ticket",
    "origin",
    "blocked",
)
BUS_DIRECTIONS = ("published", "received", "duplicate", "malformed", "dropped")
BUS_KINDS = ("push", "disconnect", "blocked", "drain", "flush")
CACHES = ("agent_response", "query", "function")
CACHE_RESULTS = ("hit", "miss", "shared", "bypass")
# What became of a handshake: accepted, refused by its problem's reason or code, or closed at once.
WS_HANDSHAKES = (
    *(
        "accepted",
        "full",
        "key_limit",
        "address_limit",
        "draining",
        "bad-request",
        "invalid",
        "unavailable",
        "rate-limited",
        "internal",
    ),
    *AUTH_FAILURES,
)
WS_INITIATORS = ("client", "server")
# The code of the side that closed first, or why the server cut the connection without one.
WS_CLOSE_CODES = (
    *("1000", "1001", "1002", "1005", "1006", "1007", "1008", "1009", "1011", "1012", "1013", "4001", "4002", "4003"),
    *("no_pong", "slow_reader", "cut"),
)
WS_IN, WS_OUT = (
    ("chat", "cancel", "ping", "invalid"),
    (*("ready", "delta", "answer", "done", "error", "pong", "broadcast", "task", "gap"),),
)
CONNECTIONS_CUT = (
    "connection_refused",
    "writer_stalled",
    "message_oversize",
    "frame_flood",
    "app_failed",
    "connection_failed",
    "drain_cut",
    "request_refused",
    "deadline",
)
DEPENDENCIES = ("postgresql", "redis")
# Where label sets are not all known at start, so many are kept apart, and those of all have so many series together;
# what comes later is `other`. With everything else that leaves a process under 1,500.
BOUNDED_SERIES = 820
# Requests answered, refused (4xx), failed (5xx): what callers without a key can make takes no place of those
# answered.
HTTP_ANSWERED, HTTP_REFUSED, HTTP_FAILED = 48, 12, 12
DB_OPERATIONS, MODEL_CALLS, MODEL_TOKENS, MODEL_CHUNKS = 80, 16, 16, 8
BOUNDED = (
    "http_server_request_duration_seconds",
    "db_client_operation_duration_seconds",
    "gen_ai_client_operation_duration_seconds",
    "gen_ai_client_token_usage",
    "gen_ai_client_operation_time_to_first_chunk_seconds",
)
WS_DROPPED = ("slow_reader", "closing")
TELEMETRY_SIGNALS = ("logs", "traces", "errors")
RATE_POLICIES = ("chat", "api", "keys", "admin", "address", "auth")
BLOCKED = ("key", "user", "address")
USAGE_OUTCOMES = ("stored", "spooled", "replayed", "failed")
# Of the alert bridge.
BRIDGE_ALERTS = ("sent", "failed", "refused", "unset")
BRIDGE_CHECK_INS = ("sent", "failed", "unset")
BRIDGE_REFUSED = ("unauthorized", "bad-request", "unsupported-media-type", "payload-too-large", "invalid")
BRIDGE_SIGNALS = ("logs", "errors")
UNHANDLED = ("http", "websocket", "task", "background")
TASKS = ("chat", "callback")
TASK_OUTCOMES = ("done", "failed", "cancelled", "retried", "recovered")
TASK_QUEUES = ("chat",)
# Work that recurs and whose silence nothing else would show. A process has those that it does.
PERIODIC = (
    "blocks",
    "key-sweep",
    "presence-audit",
    "task-cleaning",
    "task-recovery",
    "task-schedule",
    "usage-partitions",
    "usage-replay",
)
