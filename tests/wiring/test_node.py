"""A node as a whole: what it starts without, what it is called, what it leaves behind."""

import asyncio
import os
import socket

import pytest

from service.errors import SettingsError
from service.wiring import open_node
from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream


async def test_a_node_starts_while_redis_and_postgresql_are_away(model_server: Upstream) -> None:
    settings = node_settings("postgresql://nobody@127.0.0.1:1/atp", "redis://127.0.0.1:1", model_server)
    async with open_node(settings) as node:
        assert not node.draining.is_set()


async def test_it_leaves_no_task_behind(database_url: str, redis_url: str, model_server: Upstream) -> None:
    before = asyncio.all_tasks()
    async with running(node_settings(database_url, redis_url, model_server)):
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() <= before


async def test_it_is_called_by_host_and_process_unless_it_has_a_name(
    database_url: str, redis_url: str, model_server: Upstream, node: RunningNode
) -> None:
    dashboard = (await node.http.get("/api/admin/stats/dashboard")).json()
    assert dashboard["node"] == f"{socket.gethostname()}:{os.getpid()}"
    assert [card["node"] for card in dashboard["system"]["fleet"]] == [dashboard["node"]]


async def test_a_proxy_that_is_no_network_stops_the_start_in_one_line(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server, trusted_proxies=["10.0.0.0/33"])
    with pytest.raises(SettingsError, match=r"^TRUSTED_PROXIES: '10\.0\.0\.0/33' does not appear"):
        async with open_node(settings):
            pass
