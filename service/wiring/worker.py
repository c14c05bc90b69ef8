"""What a worker process is made of: the parts of a node that answer chats, and the engine that hands them out."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette

from service.agents import catalogue
from service.agents.openai_client import OpenAIClient
from service.agents.runner import Runner
from service.app import private_app
from service.background import end
from service.http.problems import problem
from service.keys.blocks import Blocks
from service.live.bus import Bus
from service.live.bus_entries import Entry
from service.live.bus_redis import RedisBusLog
from service.live.messages import Flush
from service.routes.answering import Answering
from service.routes.health import PrivateRoutes
from service.routes.recall import AnswerCodec, Recall, cacheable
from service.routes.task_running import TaskRunning
from service.settings import Settings
from service.tasks.failures import Failures
from service.tasks.lateness import Lateness
from service.tasks.news import News
from service.tasks.runs import Bounds, Runs
from service.tasks.upkeep import Upkeep
from service.tasks.worker import Work, Worker
from service.telemetry.loop import watch_loop
from service.telemetry.metrics import Metrics
from service.wiring.cache import Caching
from service.wiring.callbacks import open_callbacks
from service.wiring.ground import Ground, open_ground
from service.wiring.live import Live, key_verifier
from service.wiring.sessions import open_sessions
from service.wiring.tasks import pieces_told_by, said_by
from service.wiring.usage import open_ledger

# After WORKER_DRAIN: to give back what still runs, or to give up on a database that is away.
LEAVE_S = 5.0
# A flush of the cache is heard so much later; the news of tasks, this worker's own first of all, come in bundles.
HEAR_EVERY_S = 0.05


@dataclass(frozen=True)
class WorkerParts:
    """One open worker; `worker.serve()` takes tasks until it is stopped."""

    private: Starlette
    metrics: Metrics
    worker: Worker


@asynccontextmanager
async def open_worker(settings: Settings, concurrency: int, queues: Sequence[str]) -> AsyncIterator[WorkerParts]:
    """Open what a worker stands on; close it in reverse. Raises SettingsError as `open_node`."""
    agents = catalogue.load(settings)
    async with AsyncExitStack() as stack:
        ground = await open_ground(stack, settings, "worker")
        client = await stack.enter_async_context(OpenAIClient(settings))
        ledger = await open_ledger(ground)
        ground.work["loop-lag"] = lambda: watch_loop(ground.metrics)
        caching = Caching(ground)
        bus = open_bus(ground, caching)
        runner = Runner(agents, client, ground.metrics, ground.observers.tracer)
        recall = Recall(runner, caching.flights(AnswerCodec(), cacheable), settings)
        answering = Answering(runner, recall, open_sessions(ground), ledger)
        blocks = Blocks(ground.db, ran=ground.watched("blocks"))
        await blocks.load()  # before the first task
        ground.work["blocks"] = blocks.run
        running = TaskRunning(answering, key_verifier(ground), blocks, pieces_told_by(bus))
        worker = await make_worker(ground, running, bus, work_of(ground, concurrency, queues))
        background = await stack.enter_async_context(ground.background())
        for name, work in ground.work.items():
            background.start(name, work)
        private = PrivateRoutes(ground.metrics, lambda: worker.stopping, lambda: {"postgresql": ground.db.up})
        yield WorkerParts(private_app(private), ground.metrics, worker)


async def make_worker(ground: Ground, running: TaskRunning, bus: Bus, work: Work) -> Worker:
    """With its upkeep registered."""
    settings, news = ground.settings, News(ground.metrics, said_by(bus))
    bounds = Bounds(settings.task_tries, settings.task_timeout, settings.task_backoff, settings.task_result_bytes)
    failures = Failures(ground.metrics, ground.observers.reporter)
    runs = Runs(ground.db, running.ask, problem, news, failures, bounds, ground.observers.tracer)
    upkeep = Upkeep(
        ground.db,
        news,
        Lateness(ground.db, problem, news, failures),
        settings.worker_dead_after,
        settings.task_result_ttl,
        recovered=ground.watched("task-recovery"),
        cleaned=ground.watched("task-cleaning"),
        begun=ground.watched("task-schedule"),
    )
    ground.work |= {"task-recovery": upkeep.recover, "task-cleaning": upkeep.clean, "task-schedule": upkeep.begin}
    return Worker(work, runs, await open_callbacks(ground, failures.unforeseen))


async def node_worker(ground: Ground, answering: Answering, live: Live) -> Worker:
    """Of a node that runs tasks too, NODE_TASKS at a time."""
    running = TaskRunning(answering, live.verifier, live.blocks, pieces_told_by(live.bus))
    return await make_worker(ground, running, live.bus, work_of(ground, ground.settings.node_tasks, []))


def serve_beside(ground: Ground, worker: Worker) -> None:
    """Run it until the stack closes, then drain it; to be called last, so that all it stands on is still there."""
    background = ground.background("task")
    serving = asyncio.create_task(background.keep("worker", worker.serve), name="worker")

    async def drain() -> None:
        worker.stop()
        await asyncio.wait([serving], timeout=ground.settings.worker_drain + LEAVE_S)
        await end(serving)

    ground.stack.push_async_callback(drain)


def work_of(ground: Ground, concurrency: int, queues: Sequence[str]) -> Work:
    settings = ground.settings
    return Work(
        name=ground.name,
        dsn=settings.database_url.get_secret_value(),
        concurrency=concurrency,
        queues=queues,
        drain_s=settings.worker_drain,
        dead_after_s=settings.worker_dead_after,
    )


def open_bus(ground: Ground, caching: Caching) -> Bus:
    """To speak on, and to hear of flushes; a worker has no sockets."""

    async def heard(entry: Entry) -> int:
        if isinstance(entry.message, Flush):
            caching.flushes.heard(entry.message.group, entry.message.before_ms)
        return 0

    shared = RedisBusLog(ground.redis, ground.waiting) if ground.redis and ground.waiting else None
    bus = Bus(heard, shared, ground.breaker, ground.metrics, pause_s=HEAR_EVERY_S, pushes=False)
    if ground.breaker:
        ground.breaker.on_recovery(bus.recovered)
    ground.work |= {"bus": bus.run, "bus-speaking": bus.speak}
    ground.stack.push_async_callback(bus.close)
    return bus
