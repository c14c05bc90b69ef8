"""What a node remembers of the bus: the last five minutes for clients that come back, and the ids it has acted on."""

from collections import OrderedDict, deque
from collections.abc import Callable

from service.live.bus_entries import LARGEST, MissedPush, Seq
from service.live.messages import Push

KEEP_MS = 300_000
KEEP_ENTRIES = 10_000
# Nodes read at their own pace: another may have given a client a place that this one has not reached.
AHEAD_MS = 10_000
# The stream and what waits for Redis hold ten thousand each; one id more than both can bring back is enough.
IDS = 20_000
NOWHERE = Seq(LARGEST, LARGEST)  # after every place there is


class History:
    """The pushes of the last KEEP_MS, at most KEEP_ENTRIES, in the stream's order."""

    def __init__(self, floor: Seq = NOWHERE) -> None:
        """Complete after `floor`; by default nothing is known of any place."""
        self._entries: deque[tuple[Seq, MissedPush]] = deque()
        self._floor = floor

    def begin(self, floor: Seq) -> None:
        """Know nothing of what came up to `floor`, and everything after."""
        self._entries.clear()
        self._floor = floor

    def append(self, seq: Seq, push: Push, now_ms: float) -> None:
        """`now_ms` is the stream's clock. What is forgotten raises the floor, so an idle stream is known for long."""
        self._entries.append((seq, MissedPush(str(seq), push)))
        while len(self._entries) > KEEP_ENTRIES or self._entries[0][0].ms < now_ms - KEEP_MS:
            self._floor = max(self._floor, self._entries.popleft()[0])
            if not self._entries:
                return

    def after(self, last: Seq, position: Seq | None, now_ms: float) -> list[MissedPush] | None:
        """The pushes after a place that have not expired; None when some may be missing, or it is from the future."""
        reached_ms = max(position.ms if position else 0, now_ms)
        if last < self._floor or last.ms >= reached_ms + AHEAD_MS:
            return None
        newest_first = []
        for seq, entry in reversed(self._entries):
            if seq <= last:
                break
            if not entry.message.expired():
                newest_first.append(entry)
        return newest_first[::-1]


class ActedOn:
    """The last IDS ids of messages that this node has acted on, so that it acts on each once."""

    def __init__(self) -> None:
        # The tick of a delivery by this node alone until the stream brings the message, None from then on.
        self._ids: OrderedDict[str, int | None] = OrderedDict()

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._ids

    def alone(self, message_id: str, tick: int) -> None:
        self._remember(message_id, tick)

    def by_stream(self, message_id: str) -> tuple[bool, int | None]:
        """Whether this is the stream's first word of an id, and the tick when this node has delivered it alone."""
        tick = self._ids.get(message_id)
        first = message_id not in self._ids or tick is not None
        self._remember(message_id, None)
        return first, tick

    def _remember(self, message_id: str, tick: int | None) -> None:
        self._ids[message_id] = tick
        self._ids.move_to_end(message_id)
        if len(self._ids) > IDS:
            self._ids.popitem(last=False)


class LocalSequence:
    """Places for a node without Redis, in the same form; they grow even when the clock goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.last = Seq(int(clock() * 1000))

    def next(self) -> Seq:
        now_ms = int(self._clock() * 1000)
        self.last = Seq(now_ms) if now_ms > self.last.ms else Seq(self.last.ms, self.last.n + 1)
        return self.last
