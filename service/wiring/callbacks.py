"""Callbacks of a worker: to whom, signed with what, and what they say."""

from pydantic_core import to_json

from service.routes.task_answers import ended
from service.tasks.allow_list import AllowList
from service.tasks.callbacks import Callbacks, Terms, Watch
from service.tasks.failures import Unforeseen
from service.tasks.receivers import Receivers
from service.tasks.records import Task
from service.tasks.webhooks import keys_of
from service.tasks.worker import CALLBACKS_AT_A_TIME
from service.wiring.ground import Ground


async def open_callbacks(ground: Ground, unforeseen: Unforeseen) -> Callbacks:
    """Its connections are closed by the stack."""
    settings = ground.settings
    receivers = Receivers(settings.task_callback_timeout, CALLBACKS_AT_A_TIME)
    await ground.stack.enter_async_context(receivers)
    allowed, keys = AllowList(settings.task_callback_urls), keys_of(settings.task_callback_secret)
    terms = Terms(allowed, keys, settings.task_callback_backoff)
    watch = Watch(ground.metrics, ground.observers.tracer, unforeseen)
    return Callbacks(ground.db, receivers, body, terms, watch)


def body(task: Task) -> bytes:
    return to_json(ended(task))
