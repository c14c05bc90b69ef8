"""Traffic with known totals over two nodes and a worker: rounds of the same requests, and users who come and stay."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import redis

from service.db.pool import one_connection
from service.devices import Device
from service.embedded.folder import StateFolder
from service.keys import issuing
from service.keys.issuing import Wish
from service.keys.store import SCOPES
from tests.live import clients
from tests.live.clients import Client
from tests.ports import reserved_row
from tests.processes import NodeProcess
from tests.tasks.test_deadlines import in_seconds
from tests.tasks.workers import WorkerProcess
from tests.upstream import SCRIPTS, Upstream

REDIS_BYTES = 256 * 1024 * 1024
DEVICES: dict[Device, int] = {"mobile": 20, "tablet": 10, "desktop": 8, "unknown": 3}
PRICE = {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 2000.0}
WRONG_KEY = "atp_live_AAAAAAAA_" + "A" * 44
BACKUP = "INSERT INTO backups (bytes, place) VALUES (1048576, 'nowhere') RETURNING at"


class Site:
    """Two nodes and a worker, as processes; `round()` is one of each kind of request."""

    def __init__(self, folder: StateFolder, first_port: int, dsn: str, redis_url: str, model: Upstream) -> None:
        """Of ten ports in a row: the nodes' public ones, their private ones, the worker's."""
        self.dsn = dsn
        provider = {"base_url": model.base_url, "models": {name: PRICE if name == "good" else {} for name in SCRIPTS}}
        shared = {
            "database_url": dsn,
            "redis_url": redis_url,
            "providers": json.dumps({"scripted": provider}),
            "openai_models": "good",
            "task_tries": 1,
        }
        self.nodes = [
            NodeProcess(folder, f"node-{n}", (first_port + n, first_port + 2 + n), **shared) for n in range(2)
        ]
        self.worker = WorkerProcess(folder, "worker", first_port + 4, **shared)
        self.ports = {"atp": [node.private_port for node in self.nodes], "atp-worker": [first_port + 4]}
        self._asked = 0
        self.sockets: list[Client] = []
        self.users: list[str] = []
        self.limited = self.blocked = ""
        self.names: dict[str, str] = {}  # whose key it is, by its prefix

    async def start(self) -> None:
        async with one_connection(self.dsn) as connection:
            admin = (await issuing.create_user(connection, "admin", "admin@example.org", "admin")).id
            token = (await issuing.mint(connection, admin, Wish("admin", SCOPES))).token
            for node in self.nodes:
                node.key = token.text
        self.names[token.prefix] = "admin"
        self.limited = await self.user("limited", rate_limits={"chat": "1/hour"})
        self.blocked = await self.user("blocked")
        async with asyncio.TaskGroup() as group:
            for process in (*self.nodes, self.worker):
                group.create_task(process.start())

    async def stop(self) -> None:
        await asyncio.gather(*(process.kill() for process in (*self.nodes, self.worker)))

    async def user(self, name: str, **wish: Any) -> str:
        """A new user's key."""
        async with one_connection(self.dsn) as connection:
            user = await issuing.create_user(connection, name, f"{name}@example.org")
            token = (await issuing.mint(connection, user.id, Wish(name, ["chat", "read"], **wish))).token
        self.names[token.prefix] = name
        return token.text

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator["Site"]:
        """With clients of both nodes, four sockets of one user, and 41 users over REST."""
        async with AsyncExitStack() as stack:
            for node in self.nodes:
                await stack.enter_async_context(node.clients())
            self.one, self.other = (node.http for node in self.nodes)
            blocked = {"kind": "user", "subject": await self.id_of("blocked"), "for_s": 600}
            assert (await self.one.post("/api/admin/blocks", json=blocked)).status_code == 201
            key = await self.user("with-sockets")
            for number, device in enumerate(("mobile", "mobile", "desktop", "tablet")):
                opened = clients.socket(self.nodes[number % 2], key, device=device)
                self.sockets.append(await stack.enter_async_context(opened))
            for device, count in DEVICES.items():
                await self.come(count, device)
            await self.rows(BACKUP)
            later = {"agent": "reasoning", "task": "later", "not_before": in_seconds(3600)}
            await self.submit(later)
            yield self

    async def come(self, count: int, device: Device) -> None:
        """So many new users over REST, whose heartbeats reach both nodes: each is one user, with one session."""
        for _ in range(count):
            self.users.append(await self.user(f"user-{len(self.users)}"))
            headers, body = {"x-api-key": self.users[-1]}, {"session_id": "only", "device_type": device}
            for http in (self.one, self.other):
                answer = await http.post("/api/v1/presence/heartbeat", json=body, headers=headers)
                assert answer.status_code == 200, answer.text

    async def id_of(self, username: str) -> str:
        async with one_connection(self.dsn) as connection:
            return await issuing.user_id_of(connection, username)

    async def rows(self, sql: str) -> list[Any]:
        async with one_connection(self.dsn) as connection:
            return await (await connection.execute(sql.encode())).fetchall()

    async def round(self, *, nonsense: bool = True) -> None:
        """So many of each kind that no two outcomes of it are as many; of four good chats two are new, one is streamed
        and one known from before. Ten times `nonsense`, and its socket is closed."""
        await self.chat(self.one, 200, task=self.new())
        await self.chat(self.other, 200, task=self.new())
        await self.chat(self.one, 200, task=self.new(), stream=True)
        await self.chat(self.one, 200, task="known")
        await self.chat(self.other, 502, task=self.new(), model="overloaded")
        for _ in range(2):
            await self.chat(self.one, 401, key=WRONG_KEY, task="who am I?")
        await self.chat(self.one, 429 if self._asked > 4 else 200, key=self.limited, task="known")
        for _ in range(6):
            await self.chat(self.other, 403, key=self.blocked, task="let me in")
        for _ in range(5):
            assert (await self.other.get("/nowhere")).status_code == 404
        assert (await self.one.get("/api/v1/models")).status_code == 200
        for model in ("good", "good", "refuses"):
            asked = {"agent": "reasoning", "task": self.new(), "model": model}
            await self.submit(asked)
        for _ in range(4):
            task_id = await self.submit({"agent": "reasoning", "task": "never mind", "not_before": in_seconds(3600)})
            assert (await self.one.delete(f"/api/v1/tasks/{task_id}")).status_code == 200
        await self.live(nonsense=nonsense)

    async def live(self, *, nonsense: bool) -> None:
        """A broadcast that every socket hears; pings, chats and a message of no known type on one of them."""
        assert (await self.one.post("/api/admin/broadcast", json={"message": "hello"})).status_code == 202
        for socket in self.sockets:
            await socket.hear("broadcast")
        first = self.sockets[0]
        for _ in range(3):
            await first.say("ping", id="p")
            await first.hear("pong")
        for _ in range(2):
            await first.say("chat", id="c", agent="reasoning", task=self.new())
            await first.hear("done")
        if nonsense:
            await first.say("dance", id="d")
            await first.hear("error")
        assert (await clients.refusal(self.nodes[1], key=WRONG_KEY))[0] == 401

    async def submit(self, task: dict[str, Any]) -> str:
        """Its id."""
        answer = await self.other.post("/api/v1/tasks", json=task)
        assert answer.status_code == 202, answer.text
        (task_id,) = answer.json()["ids"]
        return str(task_id)

    def new(self) -> str:
        self._asked += 1
        return f"question {self._asked}"

    @staticmethod
    async def chat(http: httpx2.AsyncClient, status: int, key: str = "", **asked: Any) -> None:
        headers = {"x-api-key": key} if key else {}
        answer = await http.post("/api/v1/chat", json={"agent": "reasoning", **asked}, headers=headers)
        assert answer.status_code == status, (status, answer.text)


@asynccontextmanager
async def site(folder: StateFolder, dsn: str, redis_url: str, model: Upstream) -> AsyncIterator[Site]:
    """Started; Redis has a limit of memory, as it should."""
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory", REDIS_BYTES)
    with reserved_row(5) as first:
        built = Site(folder, first, dsn, redis_url, model)
        try:
            await built.start()
            yield built
        finally:
            await built.stop()
