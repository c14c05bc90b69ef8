"""The memory fallback, designed once: a capability gives two implementations of one small Protocol, this picks.

The policy of each capability while Redis is away is in docs/architecture.md; what every one shares is here: a call
that Redis does not answer in time is answered from memory, and once the breaker is open Redis is not asked at all.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from service.errors import StateRejected, StateUnavailable
from service.state.breaker import Breaker

Port = TypeVar("Port")
Result = TypeVar("Result")


class Failover(Generic[Port]):
    """One capability's state: `redis` while the breaker is closed, `memory` otherwise.

    Use: `await failover.call(lambda store: store.publish(key))`. The operation may run on both (a Redis that applied
    a command and then fell silent), so it must be idempotent.
    """

    def __init__(self, breaker: Breaker | None, redis: Port | None, memory: Port) -> None:
        self._breaker, self._redis = breaker, redis
        self.memory = memory

    @property
    def degraded(self) -> bool:
        """Whether memory stands in for a Redis that should be there; False where none is configured."""
        return self._breaker is not None and not self._breaker.closed

    async def call(self, operation: Callable[[Port], Awaitable[Result]]) -> Result:
        """Run one operation on Redis, or on memory when Redis is away or does not answer."""
        if self._redis is None or self._breaker is None or not self._breaker.closed:
            return await operation(self.memory)
        try:
            result = await operation(self._redis)
        except StateRejected:
            return await operation(self.memory)  # it answers: no outage, and the client has logged it
        except StateUnavailable as error:
            self._breaker.failed(str(error))
            return await operation(self.memory)
        self._breaker.succeeded()
        return result
