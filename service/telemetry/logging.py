"""Structured logs: JSON lines (or a readable form on a terminal) that never hold the event loop up.

A blocked stdout would stall every request, so lines go through a bounded queue to one writer thread; what does not fit
is dropped and counted. Every line carries the request_id and trace_id of the request it belongs to.
"""

import json
import logging
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from opentelemetry import trace
from pydantic_core import to_json
from structlog.typing import EventDict, WrappedLogger

from service.settings import Settings
from service.telemetry.allowance import Allowance
from service.telemetry.scrubbing import clean

# About 3 MB of lines: a second of access log at full speed.
QUEUE_LINES = 10_000
# Of what carries telemetry away a line a minute tells enough: while its sink is away it would write two a second.
SENDERS = ("opentelemetry", "sentry_sdk", "urllib3")
# The writer gathers lines for so long: waking its thread for each line would cost a request more than the line does.
GATHER_S = 0.02


class LineWriter:
    """Writes lines to a stream from its own thread; `print` never blocks. Used as structlog's logger."""

    def __init__(self, stream: TextIO, dropped: Callable[[], None]) -> None:
        self._stream = stream
        self._dropped = dropped
        self._lines: queue.SimpleQueue[str | Callable[[], str] | None] = queue.SimpleQueue()
        # A daemon: a stdout that never drains must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def print(self, line: str | Callable[[], str]) -> None:
        """A line, or what makes it: that is called in the writer's thread, so it must not fail."""
        if self._lines.qsize() < QUEUE_LINES:
            self._lines.put(line)
        else:
            self._dropped()

    debug = info = warning = error = critical = exception = fatal = log = msg = print

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, for at most `timeout_s`."""
        self._lines.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        batch: list[str | Callable[[], str] | None] = []
        while None not in batch:
            batch = self._gathered()
            lines = [line for line in batch if line is not None]
            try:
                self._write(lines)
            except Exception:  # noqa: BLE001 - the reader of our stdout went away; or a line, and the next may be well
                for _ in lines:
                    self._dropped()

    def _write(self, lines: list[str | Callable[[], str]]) -> None:
        self._stream.write("".join(f"{line() if callable(line) else line}\n" for line in lines))
        self._stream.flush()

    def _gathered(self) -> list[str | Callable[[], str] | None]:
        batch = [self._lines.get()]
        if batch[0] is not None:
            time.sleep(GATHER_S)
        while not self._lines.empty():
            batch.append(self._lines.get())
        return batch


@dataclass(slots=True)  # frozen would take twice as long to make
class RequestLine:
    """The access log's line of one request. Called, it is JSON with the fields that every line has."""

    request_id: str
    trace_id: int  # 0 without a trace
    method: str
    route: str
    status: int
    duration_s: float
    at: float = field(default_factory=time.time)

    def __call__(self) -> str:
        trace = {"trace_id": format(self.trace_id, "032x")} if self.trace_id else {}
        return to_json({**self.fields(), "request_id": self.request_id, **trace, **self._stamp()}).decode()

    @property
    def level(self) -> str:
        """What failed by our fault, or by that of what we stand on, is more than information."""
        return "warning" if self.status >= 500 else "info"

    def fields(self) -> dict[str, Any]:
        told = {"method": self.method, "route": self.route, "status": self.status}
        return {**told, "duration_s": round(self.duration_s, 6)}

    def _stamp(self) -> dict[str, str]:
        at = datetime.fromtimestamp(self.at, UTC)
        return {"event": "request", "level": self.level, "timestamp": at.isoformat().replace("+00:00", "Z")}


class AccessLog:
    """A line for each request: all that failed, and a share of the others. Of level "warning" are those of 5xx.

    They are the only lines that come as often as requests do, so they do not take structlog's way: that would cost a
    known answer a fifteenth of its time. The writer's thread makes them, many in a row.
    """

    def __init__(self, settings: Settings, writer: LineWriter) -> None:
        self._writer, self._share = writer, settings.access_log_sample
        # The least status that is told of.
        self._least = {"warning": 500, "error": 1000}.get(settings.log_level, 0)
        self._readable = in_console(settings)
        self._log = structlog.get_logger()

    def __call__(self, line: RequestLine) -> None:
        if line.status < self._least or (line.status < 400 and random.random() >= self._share):  # noqa: S311 - sampling
            return
        if self._readable:
            getattr(self._log, line.level)("request", **line.fields())
        else:
            self._writer.print(line)


class StdlibBridge(logging.Handler):
    """Carries the records of libraries (hypercorn, redis, psycopg) into the same lines."""

    def __init__(self) -> None:
        super().__init__()
        self._senders = {name: Allowance(1) for name in SENDERS}

    def emit(self, record: logging.LogRecord) -> None:
        sender = self._senders.get(record.name.partition(".")[0])
        if sender and not sender.take():
            return
        log = structlog.get_logger()
        exception = record.exc_info if record.exc_info and record.exc_info[0] else None
        message = clean(message_of(record))
        log.log(record.levelno, "library.log", logger=record.name, message=message, exc_info=exception)


def message_of(record: logging.LogRecord) -> str:
    """As logging's own handlers, it raises nothing into the library whose arguments do not fit its words.

    psycopg quotes connection strings, passwords and all: of its messages only the template is safe.
    """
    try:
        return str(record.msg) if record.name.startswith("psycopg") else record.getMessage()
    except Exception as error:  # noqa: BLE001 - any argument's own
        return f"({type(error).__name__} in a message of {record.filename}:{record.lineno})"


def configure(settings: Settings, dropped: Callable[[], None]) -> LineWriter:
    """Set structlog and the standard logging module up; the caller closes the writer last."""
    writer = LineWriter(sys.stdout, dropped)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_trace_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers(settings),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[StdlibBridge()], level=logging.WARNING, force=True)
    # An outage is one line of ours (database.unavailable); the pool's workers would add fifteen a second.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    return writer


def in_console(settings: Settings) -> bool:
    return settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())


def renderers(settings: Settings) -> list[Any]:
    if in_console(settings):
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain)]
    # By default structlog writes every frame's local variables: the prompt and the key among them.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    return [structlog.processors.ExceptionRenderer(tracebacks), without_data, render_json]


def without_data(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The texts of exceptions without what they quote: it may be a prompt, a key, a row."""
    for told in event.get("exception", []):
        told["exc_value"] = clean(told["exc_value"], told["exc_type"])
        told["exc_notes"] = [clean(note) for note in told.get("exc_notes", [])]
        told["syntax_error"] = None  # it has the line
        for group in told.get("exceptions", []):
            without_data(_, __, {"exception": group})
    return event


def render_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    try:
        return to_json(event, fallback=repr).decode()
    except Exception:  # noqa: BLE001 - bytes, lone surrogates, a repr that fails: the line is poorer, and its author goes on
        return json.dumps({str(key): value for key, value in event.items() if type(value) in (str, int, float)})


def add_trace_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
    return event
