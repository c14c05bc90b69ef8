"""The engine of a worker: procrastinate's, that forgets no notice."""

from typing import Any

from procrastinate.worker import Worker


class Engine(Worker):
    """The library forgets the notice of a new job that comes while it asks for one: if PostgreSQL had answered before
    the job was there, it lay until the next look."""

    _notices = 0

    async def _handle_notification(self, **notice: Any) -> None:
        self._notices += 1
        await super()._handle_notification(**notice)

    async def _fetch_and_process_jobs(self) -> None:
        """Until there is nothing to do, and nothing was heard of while that was found out."""
        known = -1
        while known != self._notices:
            known = self._notices
            await super()._fetch_and_process_jobs()  # type: ignore[no-untyped-call]  # the library's gap
