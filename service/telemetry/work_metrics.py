"""The catalogue's side of what is answered and accounted for: models, the cache, usage, tasks."""

from service.telemetry.bounded import OTHER
from service.telemetry.instruments import Instruments
from service.telemetry.labels import (
    CACHE_RESULTS,
    CACHES,
    MODEL_CALLS,
    MODEL_CHUNKS,
    MODEL_LATENCY_S,
    MODEL_TOKENS,
    TASK_OUTCOMES,
    TASK_QUEUES,
    TASK_RUN_S,
    TASK_WAIT_S,
    TASKS,
    TOKENS,
    USAGE_OUTCOMES,
)


class WorkMetrics(Instruments):
    def __init__(self) -> None:
        super().__init__()
        self._models()
        self._cache()
        self._usage()
        self._tasks()

    def _models(self) -> None:
        """OpenTelemetry's GenAI conventions."""
        model = ("operation", "provider", "model")
        self.model_duration = self._histogram(
            "gen_ai_client_operation_duration_seconds",
            "Time of one model call; error_type is empty when it succeeded",
            *(*model, "error_type"),
            buckets=MODEL_LATENCY_S,
        )
        self.model_durations = self._bounded(
            self.model_duration,
            MODEL_CALLS,
            # Alerts leave cancelled calls out.
            lambda operation, _, __, error: (operation, OTHER, OTHER, error if error in ("", "cancelled") else OTHER),
        )
        self.model_tokens = self._histogram(
            "gen_ai_client_token_usage",
            "Tokens of one model call, by token_type input or output",
            *(*model, "token_type"),
            buckets=TOKENS,
        )
        self.model_token_counts = self._bounded(
            self.model_tokens, MODEL_TOKENS, lambda operation, _, __, token_type: (operation, OTHER, OTHER, token_type)
        )
        self.model_first_chunk = self._histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time to the first piece of a streamed answer",
            *("provider", "model"),
            buckets=MODEL_LATENCY_S,
        )
        self.model_first_chunks = self._bounded(self.model_first_chunk, MODEL_CHUNKS)

    def _cache(self) -> None:
        self.cache_requests = self._counter(
            "atp_cache_requests",
            "Look-ups: hit; miss, a call was made; shared, one under way was joined; bypass, the caller wanted its own",
            *("cache", "result"),
        )
        self.cache_bytes = self._gauge("atp_cache_memory_bytes", "Bytes of cached answers in this process's memory")
        self.cache_entries = self._gauge("atp_cache_memory_entries", "Cached answers in this process's memory")
        self.cache_evictions = self._counter("atp_cache_evictions", "Cached answers dropped to make room for others")
        self._known(self.cache_requests, CACHES, CACHE_RESULTS)

    def _usage(self) -> None:
        self.usage_rows = self._counter(
            "atp_usage_rows",
            "Usage rows: stored by a commit, spooled on this disk, replayed from there, or failed (refused or lost)",
            "outcome",
        )
        self.usage_spool_rows = self._gauge("atp_usage_spool_rows", "Usage rows on this node's disk, to be replayed")
        self.usage_spool_bytes = self._gauge("atp_usage_spool_bytes", "Size of the segments they are in")
        self.usage_spool_max = self._gauge("atp_usage_spool_max_bytes", "What it may be; when it is, chats get 503")
        self._known(self.usage_rows, USAGE_OUTCOMES)

    def _tasks(self) -> None:
        self.tasks = self._counter(
            "atp_tasks",
            "Tasks, callbacks: done, failed, cancelled; retried, others being at fault; recovered from a dead worker",
            *("task", "outcome"),
        )
        self.task_duration = self._histogram(
            "atp_task_duration_seconds",
            "Time of a task's last run, from its start to its end; of each try of a callback",
            "task",
            buckets=TASK_RUN_S,
        )
        self.task_queue_wait = self._histogram(
            "atp_task_queue_wait_seconds",
            *("From a task's submission, or its not_before, to its first start", "queue"),
            buckets=TASK_WAIT_S,
        )
        self.periodic_success = self._gauge(
            "atp_task_last_success_timestamp_seconds",
            "When a periodic work of this process last came to its end, as Unix time; 0: never since the start",
            "task",
        )
        self._known(self.tasks, TASKS, TASK_OUTCOMES)
        self._known(self.task_duration, TASKS)
        self._known(self.task_queue_wait, TASK_QUEUES)
