"""The memory fallback, designed once: a capability gives two implementations of one small Protocol, this picks.

The policy of each capability while Redis is away is in docs/architecture.md; what every one shares is here: a call
that Redis does not answer in time is answered from memory, and once the breaker is open Redis is not asked at all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import StateRejected, StateUnavailable
from service.state.breaker import Breaker

Port = TypeVar("Port")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answered(Generic[Result]):
    """A result and who gave it. `degraded`: memory did, so it is of this node alone; also where there is no Redis."""

    result: Result
    degraded: bool


class Failover(Generic[Port]):
    """One capability's state: `redis` while the breaker is closed, `memory` otherwise.

    Use: `await failover.call(lambda store: store.publish(key))`, or `ask` where the answer shows who gave it. The
    operation may run on both (a Redis that applied a command and then fell silent), so it must be idempotent.
    """

    def __init__(self, breaker: Breaker | None, redis: Port | None, memory: Port) -> None:
        self._breaker, self._redis = breaker, redis
        self.memory = memory

    @property
    def degraded(self) -> bool:
        """Whether Redis should be there and is known to be away; False where none is configured.

        It tells what to expect. What happened to one call only `ask` knows: the first of an outage find it out.
        """
        return self._breaker is not None and not self._breaker.closed

    @property
    def alone(self) -> bool:
        """Whether memory will answer the next call: as `degraded`, and True where no Redis is configured."""
        return self._redis is None or self._breaker is None or not self._breaker.closed

    async def call(self, operation: Callable[[Port], Awaitable[Result]]) -> Result:
        """Run one operation on Redis, or on memory when Redis is away, refuses it or does not answer."""
        return (await self.ask(operation)).result

    async def ask(self, operation: Callable[[Port], Awaitable[Result]]) -> Answered[Result]:
        """As `call`, and say who answered."""
        if self._redis is not None and self._breaker is not None and self._breaker.closed:
            try:
                result = await operation(self._redis)
            except StateRejected:
                self._breaker.rejected()
            except StateUnavailable as error:
                self._breaker.failed(str(error))
            else:
                self._breaker.succeeded()
                return Answered(result, degraded=False)
        return Answered(await operation(self.memory), degraded=True)

    def rejected(self) -> None:
        """Tell the breaker that Redis refused what a background loop asked of it directly, having no use for memory.

        A Redis that does not answer is found out by the probe.
        """
        if self._breaker:
            self._breaker.rejected()
