"""Spans on their way out: a bounded queue, and the one thread that sends them in batches.

Not the library's batch processor: it takes a request 3 us for its four spans' way through it, and wants each of them
made into another object first.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from service.telemetry.spans import RecordedSpan

log = structlog.get_logger()

QUEUE_SPANS = 8192
# Posting a batch costs as much as encoding a hundred spans, both under the interpreter's lock, which the loop wants:
# with batches of 128 every chat cost 40 to 60 us more. serving.py shortens the lock's turns, so the p99 is no worse.
BATCH_SPANS = 1024
BATCH_EVERY_S = 1.0
CLOSE_S = 2.0

# Sends a batch, in the queue's thread, and says whether the collector took it.
Send = Callable[[Sequence[RecordedSpan]], bool]


class SpanQueue:
    """`dropped` counts spans that found the queue full or closed, or that nobody took.

    The thread starts here, so build it after any fork.
    """

    def __init__(self, send: Send, dropped: Callable[[int], None]) -> None:
        self._send, self._dropped = send, dropped
        self._waiting: deque[RecordedSpan] = deque()
        self._wake = threading.Event()
        self._ends_at: float | None = None
        self._in_hand, self._closed = 0, False
        self._lost_in_a_row = 0
        # A daemon: a silent collector must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="span-sender", daemon=True)
        self._thread.start()

    def put(self, span: RecordedSpan) -> None:
        if self._closed or len(self._waiting) >= QUEUE_SPANS:
            self._dropped(1)
            return
        self._waiting.append(span)
        if len(self._waiting) == BATCH_SPANS:
            self._wake.set()

    def close(self, longest_send_s: float) -> None:
        """Send what waits; no batch is begun after CLOSE_S, and one may take `longest_send_s`. Blocks."""
        self._ends_at = time.monotonic() + CLOSE_S
        self._wake.set()
        self._thread.join(CLOSE_S + longest_send_s)
        self._closed = True
        if left := len(self._waiting) + self._in_hand:  # the sender is stuck
            self._dropped(left)

    def _run(self) -> None:
        while self._ends_at is None:
            self._wake.wait(BATCH_EVERY_S)
            self._wake.clear()
            self._send_batch()
            while len(self._waiting) >= BATCH_SPANS:
                self._send_batch()
        while self._waiting:
            self._send_batch()

    def _send_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_SPANS, len(self._waiting)))]
        self._in_hand = len(batch)
        if batch:
            self._tell(self._sent(batch))
        self._in_hand = 0

    def _tell(self, sent: bool) -> None:
        """Once of each outage's end; of its beginning the exporter has a line, which says why."""
        if not sent:
            self._dropped(self._in_hand)
            self._lost_in_a_row += self._in_hand
        elif lost := self._lost_in_a_row:
            self._lost_in_a_row = 0
            log.warning("spans.sent_again", lost=lost)

    def _sent(self, batch: Sequence[RecordedSpan]) -> bool:
        if self._ends_at and time.monotonic() > self._ends_at:
            return False
        try:
            return self._send(batch)
        except Exception:  # the next batch may be well
            log.exception("spans.not_sent")
            return False
