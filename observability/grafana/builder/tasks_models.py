"""Work that is done later, and the models that do it: queues, outcomes, times, tokens, usage rows on their way."""

from observability.grafana.builder import limits, money, saturation
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import TRAFFIC, NoLimits, above
from observability.grafana.builder.links import on_instance, to_traces
from observability.grafana.builder.panels import Panel, bars, lines
from observability.grafana.builder.query import Q, counted, held, quantile, select, share

CALLS = "gen_ai_client_operation_duration_seconds"


def board() -> Board:
    it = Board("atp-tasks-models", "ATP · Tasks & models", "Queues, tasks, model calls, tokens, usage.")
    it.row("Waiting", [saturation.queue_depth(), saturation.queue_age(), _wait()])
    it.row("Tasks", [_outcomes(), _failed(), _duration()], [_periodic()])
    it.row("Models", [_calls(), _errors(), _time()], [_first_chunk(), _tokens(), _tokens_a_call()])
    it.row("Usage", [_rows(), _spool(), _spool_bytes(), money.spend(6)])
    return it


def _wait() -> Panel:
    return lines(
        "Wait before a task starts",
        "From its submission, or its not_before, to its first start.",
        "s",
        above(limits.QUEUE_OLD_S, 60),
        Q(quantile(0.5, "atp_task_queue_wait_seconds", by="queue"), "{{queue}} p50"),
        Q(quantile(0.95, "atp_task_queue_wait_seconds", by="queue"), "{{queue}} p95"),
        empty="no tasks started",
    )


def _outcomes() -> Panel:
    return lines(
        "Tasks and callbacks",
        "By outcome: done, failed, cancelled; retried, others being at fault; recovered from a dead worker.",
        "cps",
        TRAFFIC,
        Q(counted("atp_tasks_total", by="task, outcome"), "{{task}} {{outcome}}"),
        empty="no tasks",
        stacked=True,
    )


def _failed() -> Panel:
    return lines(
        "Failed tasks",
        "Tasks and callbacks that were given up.",
        "cps",
        limits.ANY_RATE,
        Q(counted("atp_tasks_total", 'outcome="failed"', by="task"), "{{task}}"),
        links=on_instance()[1:],
        empty="no errors",
    )


def _duration() -> Panel:
    return lines(
        "Time of a task",
        "Of its last run; of each try of a callback.",
        "s",
        NoLimits("a task has its own deadline"),
        Q(quantile(0.5, "atp_task_duration_seconds", by="task"), "{{task}} p50"),
        Q(quantile(0.95, "atp_task_duration_seconds", by="task"), "{{task}} p95"),
        empty="no tasks",
    )


def _periodic() -> Panel:
    return bars(
        "Since periodic work last succeeded",
        "By work; of the instance that did it last.",
        "s",
        NoLimits("AtpTaskStale has one for each work, from a minute to 26 hours"),
        Q(f"time() - (max by (task) ({select('atp_task_last_success_timestamp_seconds')}) > 0)", "{{task}}"),
        empty="not since the start",
        width=24,
    )


def _calls() -> Panel:
    return lines(
        "Model calls",
        "Calls a second, by model.",
        "cps",
        TRAFFIC,
        Q(counted(f"{CALLS}_count", by="provider, model, operation"), "{{provider}} {{model}} {{operation}}"),
        empty="no model calls",
        stacked=True,
    )


def _errors() -> Panel:
    # A call that ended since its client left is not the server's fault.
    failed = (f"{CALLS}_count", 'error_type!~"|cancelled"')
    calls = f"({counted(f'{CALLS}_count', by='provider, model')} > 0)"
    return lines(
        "Failed model calls",
        "Share of a model's calls that failed, by kind and together; not those that ended since their client left. "
        "AtpLLMUpstreamErrors has this limit, for all kinds together.",
        "percentunit",
        above(limits.LLM_ERRORS),
        Q(
            f"{counted(*failed, by='provider, model, error_type')} / on (provider, model) group_left () {calls}",
            "{{provider}} {{model}} {{error_type}}",
        ),
        Q(f"{counted(*failed, by='provider, model')} / {calls}", "{{provider}} {{model}}"),
        links=[to_traces("{ span.error.type != nil && kind = client }", "Failed calls")],
        empty="no errors",
    )


def _time() -> Panel:
    return lines(
        "Time of a model call, p95",
        "To the answer's last piece.",
        "s",
        above(60, 20),
        Q(quantile(0.95, CALLS, by="model"), "{{model}}", exemplars=True),
        empty="no model calls",
    )


def _first_chunk() -> Panel:
    return lines(
        "Time to the first piece, p95",
        "Of streamed answers: what a user waits before anything appears.",
        "s",
        above(5, 2.5),
        Q(
            quantile(0.95, "gen_ai_client_operation_time_to_first_chunk_seconds", by="provider, model"),
            "{{provider}} {{model}}",
            exemplars=True,
        ),
        empty="no streams",
    )


def _tokens() -> Panel:
    return lines(
        "Tokens by model",
        "Tokens a second, in and out.",
        "cps",
        TRAFFIC,
        Q(counted("gen_ai_client_token_usage_sum", by="model, token_type"), "{{model}} {{token_type}}"),
        empty="no model calls",
        stacked=True,
    )


def _tokens_a_call() -> Panel:
    usage = "gen_ai_client_token_usage"
    return lines(
        "Tokens of a call",
        "The mean of a model's calls.",
        "short",
        TRAFFIC,
        Q(
            share(
                counted(f"{usage}_sum", by="model, token_type"),
                counted(f"{usage}_count", by="model, token_type"),
            ),
            "{{model}} {{token_type}}",
        ),
        empty="no model calls",
    )


def _rows() -> Panel:
    return lines(
        "Usage rows",
        "stored by a commit, spooled on this disk, replayed from there; failed: refused or lost.",
        "cps",
        TRAFFIC,
        Q(counted("atp_usage_rows_total", by="outcome"), "{{outcome}}"),
        width=6,
    )


def _spool() -> Panel:
    return lines(
        "Spooled usage rows",
        "Rows on the nodes' disks, to be replayed. AtpUsageSpoolGrowing fires while they become more.",
        "short",
        limits.ANY,
        Q(held("atp_usage_spool_rows", by="instance"), "{{instance}}"),
        links=on_instance(),
        empty="none",
        width=6,
    )


def _spool_bytes() -> Panel:
    return lines(
        "Size of the spool",
        "Bytes of the segments that they are in, and how many a node may have.",
        "bytes",
        NoLimits("the limit is a line of its own, and AtpUsageSpoolGrowing pages at four fifths of it"),
        Q(held("atp_usage_spool_bytes", by="instance"), "{{instance}}"),
        Q(held("atp_usage_spool_max_bytes", how="max"), "limit of a node"),
        links=on_instance(),
        empty="none",
        width=6,
    )
