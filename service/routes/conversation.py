"""What a client says on its socket, and the answers: chats that stream side by side and may be cancelled."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import cast

import structlog

from service.background import end
from service.errors import AtpError, BadRequest, Conflict, Invalid, NotFound, TooMany
from service.http.body import validated
from service.http.context import Observers, request_id_of
from service.http.problems import problem
from service.http.ratelimit import Gate
from service.limits.slots import Slots
from service.live.protocol import (
    CLIENT_MESSAGE,
    Cancel,
    ClientMessage,
    Close,
    Done,
    Error,
    Ping,
    Pong,
    ServerMessage,
    frame_of,
)
from service.live.protocol import Chat as AskedChat
from service.live.socket import Socket
from service.routes.admission import Visit
from service.routes.answering import Answering
from service.routes.chat_requests import ChatRequest
from service.routes.chats import Caller, Chat
from service.routes.message_trace import MessageTrace
from service.telemetry.operations import tell_failure
from service.telemetry.socket_metrics import SocketMetrics

log = structlog.get_logger()

CHATS_AT_ONCE = 8
# A client that keeps sending what cannot be understood is broken or hostile; a minute's slip is neither.
FAULTS_ALLOWED = 20
FAULTS_FORGOTTEN_S = 60.0


@dataclass(frozen=True)
class Costs:
    """What a chat on a socket counts against: its key's limit, and its key's streams."""

    gate: Gate
    slots: Slots


class Conversations:
    """What every conversation of this node uses."""

    def __init__(
        self,
        answering: Answering,
        costs: Costs,
        metrics: SocketMetrics,
        observers: Observers,
        reached: Callable[[], str],
    ) -> None:
        """`reached` tells the seq of the last push that every socket has been sent."""
        self.answering, self.costs = answering, costs
        self.metrics, self.observers = metrics, observers
        self.reached = reached

    def begin(self, socket: Socket, visit: Visit) -> "Conversation":
        return Conversation(self, socket, visit)


class Conversation:
    """Of one socket; what an idle one never needs is made when it first speaks."""

    __slots__ = ("_called_off", "_chats", "_common", "_faults", "_faults_since", "_socket", "_visit")

    def __init__(self, common: Conversations, socket: Socket, visit: Visit) -> None:
        self._common, self._socket, self._visit = common, socket, visit
        self._chats: dict[str, asyncio.Task[None]] | None = None
        self._called_off: set[str] | None = None  # by the client: a cancellation's own message is lost on its way
        self._faults, self._faults_since = 0, 0.0

    async def take(self, text: str | None) -> None:
        """Act on one message; what is wrong with it is answered, never raised."""
        started = time.perf_counter()
        type_, id_ = "invalid", None
        with self._traced() as trace:
            try:
                message = understood(text)
                type_, id_ = message.type, message.id
                trace.name(type_)
                await self._act(message, trace)
            except AtpError as error:
                tell_failure(error.code)
                if isinstance(error, BadRequest | Invalid):
                    self._fault()
                await self._say_error(error, id_)
            except OSError:
                pass  # it left while it was answered; the next receive says so
            finally:
                self._common.metrics.received(type_, len(text or ""), time.perf_counter() - started)

    def _traced(self) -> MessageTrace:
        return MessageTrace(self._common.observers.tracer, self._visit.handshake, self._visit.identity.key_prefix)

    async def end(self) -> None:
        """The socket is gone: end every chat, so that no model works for nobody."""
        if self._chats:
            await end(*self._chats.values())

    async def _act(self, message: ClientMessage, trace: MessageTrace) -> None:
        if isinstance(message, AskedChat):
            await self._begin_chat(message, trace)
            await asyncio.sleep(0)  # it has begun before the next message may cancel it
        elif isinstance(message, Cancel):
            self._cancel(message.id)
        else:
            await self._say(self._pong(message))

    async def _begin_chat(self, message: AskedChat, trace: MessageTrace) -> None:
        """Raises Invalid, NotFound, Conflict, TooMany or DatabaseUnavailable."""
        started = time.perf_counter()
        chats = self._chats = {} if self._chats is None else self._chats
        if message.id in chats:
            raise Conflict("A chat with this id is under way.")
        if len(chats) >= CHATS_AT_ONCE:
            raise TooMany(f"A socket may have {CHATS_AT_ONCE} chats under way.")
        body = validated(lambda: ChatRequest.model_validate(message.request(), strict=True))
        await self._common.costs.gate.charge_socket(self._visit.identity)
        caller = Caller(self._visit.identity, request_id_of([]), started=started)
        chat = await self._common.answering.begin(caller, body)
        chats[message.id] = asyncio.create_task(self._answer(message.id, chat, trace))
        trace.goes_on = True
        self._socket.busy = len(chats)

    def _cancel(self, id_: str) -> None:
        """Raises NotFound."""
        if not self._chats or id_ not in self._chats:
            raise NotFound("There is no chat with this id under way.")
        self._called_off = (self._called_off or set()) | {id_}
        self._chats[id_].cancel()

    async def _answer(self, id_: str, chat: Chat, trace: MessageTrace) -> None:
        """One chat, from its question to `done`, in its message's trace."""
        structlog.contextvars.bind_contextvars(request_id=chat.request_id)
        try:
            async with self._common.costs.slots.held(self._visit.identity):
                if self._is_called_off(id_):  # Python 3.11 may lose a cancellation in a Redis call (background.end)
                    raise asyncio.CancelledError
                await self._stream(id_, chat)
        except TooMany as error:
            tell_failure(error.code)
            await self._say_error(error, id_, chat.request_id)
        except OSError:
            pass  # it left; the row of what it used is on its way
        except asyncio.CancelledError:
            if not self._is_called_off(id_):
                raise
            done = Done(type="done", id=id_, chat_id=str(chat.meter.id), usage={**chat.usage()}, cancelled=True)
            with suppress(OSError):  # it left as well
                await self._say(done)
        except Exception as error:  # noqa: BLE001 - the end of a task that nobody awaits: logged, counted, reported
            tell_failure(AtpError.code)
            await self._unforeseen(error, id_, chat)
        finally:
            trace.end()
            self._finished(id_)

    async def _stream(self, id_: str, chat: Chat) -> None:
        answering = self._common.answering
        async with aclosing(answering.events(chat, answering.stream(chat))) as events:
            async for name, fields in events:
                if name == "done":
                    fields["chat_id"] = fields.pop("id")
                if name == "error":
                    fields["problem"] = fields.pop("error")
                await self._say(cast(ServerMessage, {"type": name, "id": id_, **fields}))

    async def _unforeseen(self, error: Exception, id_: str, chat: Chat) -> None:
        observers = self._common.observers
        observers.metrics.unhandled.labels("websocket").inc()
        log.error("chat.unhandled", exc_info=error)
        observers.reporter.capture(error, request_id=chat.request_id, route="/ws/session")
        await self._say_error(AtpError(), id_, chat.request_id)

    def _is_called_off(self, id_: str) -> bool:
        return self._called_off is not None and id_ in self._called_off

    def _finished(self, id_: str) -> None:
        if self._called_off:
            self._called_off.discard(id_)
        if self._chats:
            self._chats.pop(id_, None)
            self._socket.busy = len(self._chats)

    def _fault(self) -> None:
        now = time.monotonic()
        if now - self._faults_since > FAULTS_FORGOTTEN_S:
            self._faults, self._faults_since = 0, now
        self._faults += 1
        if self._faults > FAULTS_ALLOWED:
            self._socket.close(Close.POLICY, "too many faults")

    def _pong(self, ping: Ping) -> Pong:
        pong, reached = Pong(type="pong"), self._common.reached()
        if ping.id is not None:
            pong["id"] = ping.id
        if reached:
            pong["seq"] = reached
        return pong

    async def _say(self, message: ServerMessage) -> None:
        frame = frame_of(message)
        await self._socket.link.write(frame)
        self._common.metrics.sent(message["type"], 1, len(frame))

    async def _say_error(self, error: AtpError, id_: str | None, request_id: str = "") -> None:
        found = problem(error, request_id or structlog.contextvars.get_contextvars().get("request_id", ""))
        message = Error(type="error", problem=found)
        if id_ is not None:
            message["id"] = id_
        with suppress(OSError):  # it left
            await self._say(message)


def understood(text: str | None) -> ClientMessage:
    """Raises BadRequest or Invalid."""
    if text is None:
        raise BadRequest("Send text frames; binary ones mean nothing here.")
    return validated(lambda: CLIENT_MESSAGE.validate_json(text))
