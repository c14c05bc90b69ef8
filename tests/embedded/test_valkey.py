import pytest
import redis

from service.embedded.valkey import Valkey
from tests.redis_topologies import Cluster, SentinelTrio, until
from tests.servers import OwnValkey, run


def test_it_asks_for_its_password(redis_url: str, valkey_server: Valkey) -> None:
    with redis.Redis(port=valkey_server.port, retry=None) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping() is True


def test_it_keeps_an_append_only_file_synced_each_second(own_valkey: OwnValkey) -> None:
    with redis.Redis.from_url(own_valkey.url, decode_responses=True) as client:
        settings = client.config_get("append*")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"


def test_a_stopped_server_comes_back_on_its_port_with_every_key(own_valkey: OwnValkey) -> None:
    before = own_valkey.url
    with redis.Redis.from_url(before) as client:
        client.set("kept", "yes")
    run(own_valkey.stop())
    run(own_valkey.restart())
    assert own_valkey.url == before
    with redis.Redis.from_url(before) as client:
        assert client.get("kept") == b"yes"


def test_the_sentinels_promote_a_replica_when_the_primary_is_killed(sentinel_trio: SentinelTrio) -> None:
    replicas = {replica.port for replica in sentinel_trio.replicas}
    assert run(sentinel_trio.primary_port()) == sentinel_trio.primary.port
    run(sentinel_trio.primary.kill())
    assert run(promoted(sentinel_trio)) in replicas


async def promoted(trio: SentinelTrio) -> int:
    async def another() -> bool:
        return await trio.primary_port() != trio.primary.port

    await until(another)
    return await trio.primary_port()


def test_the_cluster_holds_every_slot(redis_cluster: Cluster) -> None:
    first = redis_cluster.nodes[0]
    with redis.RedisCluster(host="127.0.0.1", port=first.port, password=first.password) as client:
        for number in range(30):
            client.set(f"embedded:{number}", number)
        assert client.get("embedded:29") == b"29"
        assert client.cluster_info()["cluster_slots_ok"] == "16384"
