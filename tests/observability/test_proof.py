"""The dashboards over a real Prometheus, two nodes and a worker, under traffic of known totals: no panel may be empty.

Every query of every panel, variable and annotation is asked after each of two phases. What has one right value must
have it; what is a rate is asked for its whole counters too, which must have counted each thing that was done once;
times and sizes have bounds, and nearly everything must change. The checks themselves are checked: with a metric
renamed, a `max` made a `sum`, a node not asked, or one of the MUTANTS for a query, they fail.
"""

import asyncio
import fcntl
import json
import math
import os
import pickle
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from service.embedded.folder import StateFolder
from service.embedded.valkey import VOLATILE, start_valkey
from tests.conftest import new_database
from tests.observability import pictures
from tests.observability.alertmanagers import alertmanager
from tests.observability.boards import BOARDS, Query, all_queries
from tests.observability.bounds import AMONG, BOUNDS, NOT_HELD
from tests.observability.bridges import bridge_settings, bridging
from tests.observability.bugsink import Bugsink
from tests.observability.expected import BROKEN, CONSTANT, EXACT, QUIET, TABLES
from tests.observability.monitoring import Monitoring, fast_alertmanager
from tests.observability.promql import series
from tests.observability.queries import Seen, ask, filled, in_sql, seen
from tests.observability.reading import counted_whole, not_among, outside, uncounted, unlike
from tests.observability.tools import require_tool
from tests.observability.totals import SHOWN, WHOLE
from tests.observability.workload import Site, site
from tests.ports import reserved_port
from tests.servers import OwnValkey, run
from tests.upstream import upstream
from tests.waiting import eventually

pytestmark = [pytest.mark.timeout(180)]

ROUNDS = 4, 6
RIGHT = {**EXACT, **SHOWN}
HELD = [*RIGHT, *WHOLE, *BOUNDS, *AMONG]

# A query, what stands in it, and what might: as after a change that was not thought through.
Mutant = tuple[str, str, str]
MUTANTS: list[Mutant] = [
    ("atp-http-slo / Failing routes / A", "[45]..", "9.."),
    ("atp-overview / Errors / A", '"5.."', '"9.."'),
    ("atp-http-slo / Availability by instance / A", "1 - (", "("),
    ("atp-overview / Most active API keys / A", "max by (key_id)", "max"),
    ("atp-tasks-models / Failed tasks / A", "failed", "cancelled"),
    ("atp-cache / Calls saved / A", "hit|shared", "miss"),
    ("atp-overview / CPU / A", "max by", "1000 * max by"),
    # As if requests, or decisions, were observed twice.
    ("atp-overview / Requests a minute / A", "60 *", "120 *"),
    ("atp-limits-keys / Decisions / A", "sum by", "2 * sum by"),
]


@dataclass
class Phase:
    """What was seen at its end."""

    seen: dict[str, Seen] = field(default_factory=dict)  # by Query.name
    whole: dict[str, Seen] = field(default_factory=dict)  # with the counters in place of their rates
    tables: dict[str, list[Any]] = field(default_factory=dict)
    variables: dict[str, list[str]] = field(default_factory=dict)
    annotations: dict[str, Seen] = field(default_factory=dict)
    one_node: dict[str, Seen] = field(default_factory=dict)  # with the other not asked
    summed: dict[str, Seen] = field(default_factory=dict)  # with `sum` for `max`
    renamed: dict[str, Seen] = field(default_factory=dict)  # with another metric's name
    mutants: dict[Mutant, tuple[Seen, Seen]] = field(default_factory=dict)  # as `seen`, and as `whole`
    series: int = 0


@dataclass
class Faults:
    """What was seen while something was broken: a node that was killed, then Redis."""

    node: dict[str, Seen] = field(default_factory=dict)
    redis: dict[str, Seen] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)  # what Sentry shows, in the order of its coming


def of_prometheus() -> list[Query]:
    return [query for query in all_queries() if query.kind == "prometheus"]


@pytest.fixture(scope="module")
def proof(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> tuple[Phase, Phase, Faults]:
    """One run for all of pytest's processes: who comes first makes it, and the others wait for what it saw."""
    require_tool("prometheus")
    base = tmp_path_factory.getbasetemp()
    kept = (base if worker_id == "master" else base.parent) / "proof"
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(made(request, tmp_path_factory.mktemp("proof"))))
    seen_once: tuple[Phase, Phase, Faults] = pickle.loads(kept.read_bytes())  # noqa: S301 - our own, of a minute ago
    return seen_once


def made(request: pytest.FixtureRequest, folder: Path) -> tuple[Phase, Phase, Faults]:
    sentry: Bugsink = request.getfixturevalue("bugsink_server")
    sentry.clear()
    databases = new_database(request.getfixturevalue("postgres_server"), template="atp")
    with OwnValkey.started(lambda port: start_valkey(folder / "valkey", port, settings=VOLATILE)) as valkey:
        try:
            return run(observed(folder, next(databases), valkey, sentry))
        finally:
            next(databases, None)


@pytest.fixture
def phases(proof: tuple[Phase, Phase, Faults]) -> tuple[Phase, Phase]:
    return proof[:2]


@pytest.fixture
def faults(proof: tuple[Phase, Phase, Faults]) -> Faults:
    return proof[2]


async def observed(folder: Path, dsn: str, valkey: OwnValkey, sentry: Bugsink) -> tuple[Phase, Phase, Faults]:
    state = StateFolder.open(folder / "site")
    with reserved_port() as port:
        async with (
            upstream() as model,
            bridging(bridge_settings(sentry.dsn)) as bridge,
            alertmanager(folder / "alertmanager", bridge.port, configuration=fast_alertmanager()) as manager,
            site(state, dsn, valkey.url, model) as running,
        ):
            prometheus = Monitoring(state, port, {**running.ports, "atp-bridge": [bridge.port]}, manager.port)
            await prometheus.start()
            try:
                async with running.in_use():
                    since = time.time()
                    first, second = await two_phases(running, prometheus, since)
                    await more(running)
                    faults = await broken(running, valkey, prometheus, sentry)
                    if file := os.environ.get("ATP_PICTURES"):
                        data = json.dumps(await pictures.collect(prometheus, running, since), default=float)
                        await asyncio.to_thread(Path(file).write_text, data)
                    return first, second, faults
            finally:
                await prometheus.stop()


async def more(running: Site) -> None:
    """For the pictures: rounds at a changing pace, while users come."""
    for number in range(int(os.environ.get("ATP_PICTURES_ROUNDS", "0"))):
        await running.round(nonsense=False)
        await running.come(1 + number % 3, "mobile" if number % 2 else "desktop")
        await asyncio.sleep(0.6 + 0.5 * math.sin(number / 6))  # so that there is something to see


async def two_phases(running: Site, prometheus: Monitoring, since: float) -> tuple[Phase, Phase]:
    four = "max(atp_fleet_ws_connections_peak{window='day'})"
    await eventually(lambda: equals(prometheus, four, 4), within_s=30)
    await eventually(lambda: answered(prometheus), within_s=30)  # a ping comes 5 to 25 s after its socket
    await running.sockets.pop().connection.close()
    first = await phase(running, prometheus, ROUNDS[0], since)
    await running.come(8, "mobile")
    return first, await phase(running, prometheus, ROUNDS[1], since)


async def phase(running: Site, prometheus: Monitoring, rounds: int, since: float) -> Phase:
    for _ in range(rounds):
        await running.round()
        await asyncio.sleep(0.5)  # a rate needs time between its counts
    ended = time.time()
    await eventually(lambda: none_waits(running), within_s=20)
    await eventually(lambda: newer(prometheus, ended), within_s=30)
    done = time.time()
    await eventually(lambda: asked_since(prometheus, done), within_s=10)
    found = Phase(series=await samples(running))
    names = prometheus.instances() | running.names
    for query in of_prometheus():
        found.seen[query.name], found.whole[query.name] = await both(prometheus, query, since, names)
        if query.name in EXACT:
            found.one_node[query.name] = seen(await ask(prometheus, query, since, f".+:{running.ports['atp'][0]}"))
            summed = replace(query, text=query.text.replace("max(", "sum(").replace("max by", "sum by"))
            found.summed[query.name] = seen(await ask(prometheus, summed, since))
            found.renamed[query.name] = seen(await ask(prometheus, renamed(query), since))
    by_name = {query.name: query for query in of_prometheus()}
    for name, old, new in MUTANTS:
        changed = replace(by_name[name], text=by_name[name].text.replace(old, new))
        assert changed != by_name[name]
        found.mutants[name, old, new] = await both(prometheus, changed, since, names)
    for query in all_queries():
        if query.kind == "grafana-postgresql-datasource":
            found.tables[query.name] = await running.rows(in_sql(query.text, since))
    await variables_and_annotations(prometheus, found, since)
    return found


async def both(prometheus: Monitoring, query: Query, since: float, names: dict[str, str]) -> tuple[Seen, Seen]:
    """What it shows, and what it shows of whole counters; of a query without rates that is nothing."""
    shown = told(seen(await ask(prometheus, query, since)), names)
    whole = counted_whole(query.text)
    if whole is None:
        return shown, {}
    return shown, told(seen(await ask(prometheus, replace(query, text=whole, instant=True), since)), names)


def told(found: Seen, names: dict[str, str]) -> Seen:
    """With the names of processes for their addresses, which are others in each run."""
    return {
        tuple((label, names.get(value, value)) for label, value in labels): values for labels, values in found.items()
    }


def renamed(query: Query) -> Query:
    """As after a change of the metrics that forgot the dashboards."""
    text = query.text
    for metric in series(text):
        text = re.sub(rf"\b{metric}\b", f"{metric}_2", text)
    return replace(query, text=text)


async def variables_and_annotations(prometheus: Monitoring, found: Phase, since: float) -> None:
    for uid, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if asked := re.fullmatch(r"label_values\((.+), (\w+)\)", str(variable["query"])):
                values = await prometheus.label_values(filled(asked[1]), asked[2])
                found.variables[f"{uid} / {variable['name']}"] = values
        for annotation in board["annotations"]["list"]:
            result = await prometheus.ranged(filled(annotation["target"]["expr"]), since)
            found.annotations[f"{uid} / {annotation['name']}"] = seen(result)


async def broken(running: Site, valkey: OwnValkey, prometheus: Monitoring, sentry: Bugsink) -> Faults:
    """Each fault lasts until on-call has heard of it, and is over when on-call has heard of that."""
    found, node = Faults(), running.nodes[1]

    def heard(alert: str, status: str) -> bool:
        tags = [event["tags"] for event in sentry.events() if event["tags"].get("alertname") == alert]
        return bool(tags) and tags[-1]["status"] == status

    await node.kill()
    await eventually(lambda: heard("AtpInstanceMissing", "firing"), within_s=30)
    found.node = await while_broken(prometheus)
    await node.start()
    await eventually(lambda: heard("AtpInstanceMissing", "resolved"), within_s=30)
    await valkey.kill()
    await eventually(lambda: heard("AtpDependencyDown", "firing"), within_s=30)
    found.redis = await while_broken(prometheus)
    await valkey.restart()
    await eventually(lambda: heard("AtpDependencyDown", "resolved"), within_s=30)
    alerts = ("AtpInstanceMissing", "AtpDependencyDown")
    events = [event["tags"] for event in sentry.events() if event["tags"].get("alertname") in alerts]
    found.told = [f"{tags['alertname']} {tags['status']}" for tags in events]
    return found


async def while_broken(prometheus: Monitoring) -> dict[str, Seen]:
    since = time.time() - 5
    asked = [query for query in of_prometheus() if query.name in {*QUIET, *BROKEN}]
    return {query.name: seen(await ask(prometheus, query, since)) for query in asked}


async def samples(running: Site) -> int:
    text = (await running.nodes[0].private.get("/metrics")).text
    return sum(not line.startswith("#") for line in text.splitlines())


async def equals(prometheus: Monitoring, query: str, value: float) -> bool:
    return [float(series["value"][1]) for series in await prometheus.instant(query)] == [value]


async def answered(prometheus: Monitoring) -> bool:
    """Whether a client has answered a ping."""
    found = await prometheus.instant("sum(atp_ws_ping_rtt_seconds_count)")
    return bool(found) and float(found[0]["value"][1]) > 0


async def asked_since(prometheus: Monitoring, moment: float) -> bool:
    """Whether Prometheus has asked every process since, and again: the rules that see it have run."""
    found = await prometheus.instant("min(timestamp(up))")
    return float(found[0]["value"][1]) > moment + 1


async def newer(prometheus: Monitoring, moment: float) -> bool:
    """Whether every node shows a snapshot of after that."""
    found = await prometheus.instant("min(atp_fleet_snapshot_timestamp_seconds)")
    return bool(found) and float(found[0]["value"][1]) > moment


async def none_waits(running: Site) -> bool:
    return await running.rows("SELECT FROM tasks WHERE status IN ('queued', 'running') AND NOT scheduled") == []


def fault(name: str, plain: Seen, whole: Seen, number: int) -> dict[str, object]:
    """What is wrong with what a query showed at the end of a phase; empty where nothing is."""
    if name in AMONG:
        return not_among(AMONG[name], plain)
    if name in BOUNDS:
        return outside(BOUNDS[name], plain)
    return uncounted(WHOLE[name], whole, number) if name in WHOLE else unlike(RIGHT[name], plain, number)


def endless(values: list[float]) -> bool:
    return any(map(math.isinf, values))


def test_every_query_shows_something_and_only_numbers(phases: tuple[Phase, Phase]) -> None:
    for shown in phases:
        empty = {name for name, found in shown.seen.items() if not any(found.values())}
        assert empty - QUIET == set()
        assert {name for name, found in shown.seen.items() if any(map(endless, found.values()))} == set()


def test_what_is_empty_when_all_is_well_shows_what_is_not(faults: Faults) -> None:
    assert {name for name in QUIET if not any(faults.node[name].values())} == set()


def test_a_node_that_is_gone_shows_and_reaches_on_call_and_so_does_its_return(faults: Faults) -> None:
    assert faults.node["atp-overview / Instances up / A"][()][-1] == pytest.approx(2 / 3)
    (missing,) = (values for labels, values in faults.node["atp-on-call / Targets / A"].items() if 0 in values)
    assert missing[-1] == 0
    assert faults.told.index("AtpInstanceMissing firing") < faults.told.index("AtpInstanceMissing resolved")


def test_redis_that_is_gone_shows_and_reaches_on_call_and_so_does_its_return(faults: Faults) -> None:
    degraded = (("dependency", "redis"), ("mode", "memory"))
    assert faults.redis["atp-resources / Degraded / A"][degraded][-1] == 1
    assert faults.redis["atp-resources / Dependencies / A"][(("dependency", "redis"),)][-1] == 0
    assert faults.redis["atp-on-call / Alerts firing / A"][()][-1] > 0
    assert faults.told.index("AtpDependencyDown firing") < faults.told.index("AtpDependencyDown resolved")


@pytest.mark.parametrize("name", HELD)
def test_a_query_shows_what_was_done(phases: tuple[Phase, Phase], name: str) -> None:
    for number, shown in enumerate(phases):
        assert fault(name, shown.seen[name], shown.whole.get(name, {}), number) == {}


def test_every_query_is_held_to_something_or_says_why_not() -> None:
    assert {query.name for query in of_prometheus()} == {*HELD, *NOT_HELD}
    assert len(HELD) == len(set(HELD))
    assert set(HELD) & set(NOT_HELD) == set()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_query_that_was_changed_for_the_worse_would_be_seen(phases: tuple[Phase, Phase], mutant: Mutant) -> None:
    for number, shown in enumerate(phases):
        assert fault(mutant[0], *shown.mutants[mutant], number) != {}


def test_nearly_everything_changes_with_the_second_phase(phases: tuple[Phase, Phase]) -> None:
    first, second = phases
    same = {name for name, found in first.seen.items() if found == second.seen[name] and any(found.values())}
    assert same - CONSTANT - unchanged() == set()


def unchanged() -> set[str]:
    """What has no more of it in the second phase, by the literal values."""
    held = {**RIGHT, **WHOLE}.items()
    return {name for name, right in held if all(first == second for first, second in right.values())}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_usage_have_the_totals(phases: tuple[Phase, Phase], name: str) -> None:
    for number, shown in enumerate(phases):
        assert [tuple(row) for row in shown.tables[name]] == TABLES[name][number]


def test_every_query_of_postgresql_is_held_to_its_rows(phases: tuple[Phase, Phase]) -> None:
    assert all(rows for rows in phases[0].tables.values())


def test_variables_offer_what_runs(phases: tuple[Phase, Phase]) -> None:
    for name, values in phases[0].variables.items():
        if name.endswith("/ job"):
            assert values == ["atp", "atp-bridge", "atp-worker"]
        if name.endswith("/ instance"):
            assert len(values) == 4


def test_annotations_mark_what_happened(phases: tuple[Phase, Phase]) -> None:
    shown = {name for name, found in phases[1].annotations.items() if any(found.values())}
    assert shown == set(phases[1].annotations)


def test_a_node_that_did_all_this_has_fewer_than_1500_series(phases: tuple[Phase, Phase]) -> None:
    assert 500 < phases[1].series < 1500


def test_a_renamed_metric_would_be_seen(phases: tuple[Phase, Phase]) -> None:
    assert {name for name, found in phases[0].renamed.items() if unlike(EXACT[name], found, 0) == {}} == set()


def test_a_max_that_became_a_sum_would_be_seen(phases: tuple[Phase, Phase]) -> None:
    name = "atp-online-users / Online users / A"
    assert unlike(EXACT[name], phases[0].summed[name], 0)["found"] == {(): 84.0}


def test_a_node_that_is_not_asked_would_be_seen(phases: tuple[Phase, Phase]) -> None:
    name = "atp-websockets / WebSocket connections / A"
    assert unlike(EXACT[name], phases[0].one_node[name], 0) != {}
