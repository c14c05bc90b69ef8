"""`docs/metrics.md`, made from the catalogue: `python -m service.metric_page` writes it."""

from pathlib import Path

from service.telemetry.bridge_metrics import BRIDGE_PREFIX
from service.telemetry.catalogue import Entry, entries
from service.telemetry.fleet_metrics import PREFIX
from service.telemetry.labels import BOUNDED

HEAD = """# Metrics

Every series that ATP exports, on the private port of each process: `curl -s http://127.0.0.1:9000/metrics`. Made from
`service/telemetry/` by `make docs`. Times are in seconds, sizes in bytes. A label's values are named where they are a
closed set; series of those are there from the start, at 0.

A node that has done a little of everything has about 800 series. What callers can make more of is bounded, so that
none has 1,500 (`tests/telemetry/test_catalogue.py`). A scrape of the most that the bench can make takes a thread
16 ms, and the event loop is late by 5 at the most (`python -m bench --only telemetry`, in [bench.md](bench.md)).

"""
PROCESS = """## Of each process

To be summed over processes. Histograms have `_bucket`, `_sum` and `_count`; where a trace was recorded, buckets carry
its `trace_id` as an exemplar.

"""
OF_FLEET = f"""
## Of the fleet

One node finds these out every 10 s and all export the same, so they may only stand under `max`. While nobody could for
30 s (Redis is away), there are none: never 0. Names begin with `{PREFIX}`.

"""
OF_BRIDGE = """
## Of the alert bridge

On `BRIDGE_PORT`, with its own `atp_build_info`, `atp_telemetry_dropped_total`, `atp_unhandled_exceptions_total` and
`process_*`.

"""
LIBRARY = """
`process_*` and `python_gc_*` are the client library's: CPU seconds, memory, descriptors, collections.
"""
TABLE = "| series | type | labels | counts |\n|---|---|---|---|\n"


def as_markdown() -> str:
    found = entries()
    own = [row(entry) for entry in found if not entry.name.startswith((PREFIX, BRIDGE_PREFIX))]
    bridge = [row(entry) for entry in found if entry.name.startswith(BRIDGE_PREFIX)]
    fleet = [row(entry) for entry in found if entry.name.startswith(PREFIX)]
    return "".join([HEAD, PROCESS, TABLE, *own, LIBRARY, OF_FLEET, TABLE, *fleet, OF_BRIDGE, TABLE, *bridge])


def row(entry: Entry) -> str:
    name = entry.name + {"counter": "_total", "info": "_info"}.get(entry.kind, "")
    labels = "; ".join(shown(label, entry.known.get(label, ())) for label in entry.labels)
    text = f"{entry.text}. Of many label sets, some are told of as `other`" if entry.name in BOUNDED else entry.text
    return f"| `{name}` | {entry.kind} | {labels} | {text} |\n"


def shown(label: str, values: tuple[str, ...]) -> str:
    return f"`{label}`: {', '.join(values)}" if values else f"`{label}`"


if __name__ == "__main__":
    Path("docs/metrics.md").write_text(as_markdown())
