"""The task engine alone: jobs that do nothing, deferred in batches and worked off by one worker; a process (uvloop).

Run: python -m bench.bare_engine '{"dsn": "postgresql://…", "jobs": 4000, "concurrency": 16}'
It prints one JSON document. Its connector and its worker are set as those of `service/tasks/worker.py`.
"""

import json
import logging
import sys
import time
from typing import Any

import uvloop
from procrastinate import App, PsycopgConnector
from procrastinate.jobs import DeleteJobCondition
from procrastinate.worker import Worker

from bench.machine import SERVER_CORE, core_busy_s
from service.tasks.worker import CONNECTIONS_LEAST, CONNECTIONS_MOST, LOOK_EVERY_S

BATCH = 1000


async def measure(dsn: str, jobs: int, concurrency: int) -> dict[str, float]:
    """From the first job's start until the last is deleted."""
    settings: dict[str, Any] = {"prepare_threshold": None}
    connector = PsycopgConnector(conninfo=dsn, min_size=CONNECTIONS_LEAST, max_size=CONNECTIONS_MOST, kwargs=settings)
    app, began = App(connector=connector), list[float]()

    async def no_op(task_id: str) -> None:
        if not began:
            began.append(time.perf_counter())

    task = app.task(name="no_op")(no_op)
    async with app.open_async():
        for first in range(0, jobs, BATCH):
            await task.batch_defer_async(*({"task_id": str(n)} for n in range(first, min(first + BATCH, jobs))))
        cpu_began, busy_began = time.process_time(), core_busy_s(SERVER_CORE)
        await worker(app, concurrency).run()  # type: ignore[no-untyped-call]  # until no job is left
        taken_s, own_s = time.perf_counter() - began[0], time.process_time() - cpu_began
        others_s = core_busy_s(SERVER_CORE) - busy_began - own_s
    return {
        "per_s": jobs / taken_s,
        "server_cpu_us": 1e6 * own_s / jobs,
        "others_share": max(0.0, others_s) / taken_s,
    }


def worker(app: App, concurrency: int) -> Worker:
    return Worker(
        app,
        concurrency=concurrency,
        wait=False,
        fetch_job_polling_interval=LOOK_EVERY_S,
        abort_job_polling_interval=LOOK_EVERY_S,
        delete_jobs=DeleteJobCondition.ALWAYS,
        install_signal_handlers=False,
    )


if __name__ == "__main__":
    logging.getLogger("procrastinate").setLevel(logging.ERROR)  # that its app is made in the main module is meant
    print(json.dumps(uvloop.run(measure(**json.loads(sys.argv[1])))))
