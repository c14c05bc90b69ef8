"""Every scenario of `make bench`, in the order of the table."""

from bench import cached, chat, ledger, limits, models, presence, sockets, streams, tasks, telemetry, usage
from bench.scenario import Scenario


def scenarios(quick: bool = False) -> tuple[Scenario, ...]:
    """Some are smaller when `quick`."""
    return (
        models.SCENARIO,
        chat.SCENARIO,
        cached.SCENARIO,
        telemetry.SCENARIO,
        streams.SCENARIO,
        sockets.scenario(sockets.QUICK_SIZES if quick else sockets.SIZES),
        presence.scenario(presence.QUICK_SIZES if quick else presence.SIZES),
        limits.SCENARIO,
        ledger.SCENARIO,
        tasks.scenario(tasks.QUICK_TASKS, tasks.QUICK_SIZES) if quick else tasks.scenario(tasks.TASKS, tasks.SIZES),
        usage.scenario(usage.QUICK_SIZES if quick else usage.SIZES),
    )
