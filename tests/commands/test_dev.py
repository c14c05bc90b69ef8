"""`atp dev`, which is what `make run` runs: from nothing to an answer, and back to nothing."""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx2
import psutil

from service.embedded.llm import Llm
from tests.commands.running import ROOT, atp, environment
from tests.ports import reserved_port
from tests.waiting import eventually


def models_of(server: Llm) -> dict[str, str]:
    """Settings for a model server that runs already."""
    return {
        "openai_base_url": server.base_url,
        "openai_api_key": server.api_key,
        "openai_models": server.model,
    }


class Dev:
    """A running `atp dev` whose banner has been printed."""

    def __init__(self, process: subprocess.Popen[str], banner: str, took_s: float) -> None:
        self.process, self.banner, self.took_s = process, banner, took_s
        self.key = re.search(r"API key +(atp_live_\S+)", banner)[1]  # type: ignore[index]
        self.url = re.search(r"curl -s \D*(http://[^/]+)", banner)[1]  # type: ignore[index]
        self.children = psutil.Process(process.pid).children(recursive=True)

    def curl(self, path: str = "/api/v1/chat", **more: Any) -> str:
        """The banner's own curl line, run by a shell; `more` is put into its JSON."""
        lines = re.findall(r"curl -s .*?'\{.*?\}'", self.banner, re.DOTALL)
        (line,) = (line for line in lines if f"{path} " in line)
        words = shlex.split(line.replace("\\\n", " "))
        words[-1] = json.dumps({**json.loads(words[-1]), **more})
        return subprocess.run(words, capture_output=True, text=True, timeout=50, check=True).stdout

    def gone(self) -> bool:
        _, alive = psutil.wait_procs(self.children, timeout=5)
        return not alive


@contextmanager
def dev(state_dir: Path, **settings: Any) -> Iterator[Dev]:
    with reserved_port() as port, reserved_port() as private_port:
        variables = environment(state_dir=state_dir, port=port, private_port=private_port, **settings)
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "dev"],
            env=variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        try:
            yield Dev(process, until_banner(process.stdout), time.monotonic() - started)
        finally:
            process.kill()
            process.stdout.close()
            process.wait(10)


def until_banner(output: IO[str]) -> str:
    lines: list[str] = []
    for line in output:
        lines.append(line)
        if "atp doctor" in line:
            return "".join(lines)
    raise AssertionError("no banner:\n" + "".join(lines))


def test_the_printed_curl_line_answers_that_the_capital_of_france_is_paris(tmp_path: Path) -> None:
    with dev(tmp_path / "state") as running:
        answer = json.loads(running.curl())
        assert "Paris" in answer["answer"]
        streamed = running.curl(stream=True)
        assert streamed.startswith("event: delta\n")
        assert "Paris" in "".join(re.findall(r'"text":"([^"]*)"', streamed))
        assert streamed.rstrip().splitlines()[-2] == "event: done"
        memory_mb = psutil.Process(running.process.pid).memory_info().rss / 1e6
        assert memory_mb < 150


def test_ctrl_c_stops_every_child_and_a_second_start_is_quick_and_keeps_the_key(tmp_path: Path) -> None:
    with dev(tmp_path / "state") as first:
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(30) == 0
        assert first.gone()
    with dev(tmp_path / "state") as second:
        assert second.took_s < 5
        assert second.key == first.key
        assert "Paris" in second.curl()


def test_kill_9_leaves_no_orphan_that_blocks_the_next_start(tmp_path: Path) -> None:
    with dev(tmp_path / "state") as first:
        first.process.kill()
        first.process.wait(10)
        assert first.gone()
    with dev(tmp_path / "state") as second:
        assert second.key == first.key
        assert "Paris" in second.curl()


def test_a_part_that_dies_is_said(tmp_path: Path) -> None:
    with dev(tmp_path / "state") as running:
        valkey = next(child for child in running.children if "valkey" in " ".join(child.cmdline()))
        valkey.kill()
        assert running.process.stdout
        said = next(line for line in running.process.stdout if line.startswith("atp: "))
    assert said.startswith("atp: Valkey has ended by itself; its log is ")


def test_kill_9_of_make_ends_what_it_started(tmp_path: Path) -> None:
    with reserved_port() as port, reserved_port() as private_port:
        script = f"{sys.executable} -m service dev; true"  # the shell stays the parent, as make does
        variables = environment(state_dir=tmp_path / "state", port=port, private_port=private_port, makelevel=1)
        make = subprocess.Popen(["/bin/sh", "-c", script], env=variables, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert make.stdout
        until_banner(make.stdout)
        children = psutil.Process(make.pid).children(recursive=True)
        make.kill()
        make.wait(10)
        _, alive = psutil.wait_procs(children, timeout=10)
        make.stdout.close()
        assert not alive


def test_a_taken_port_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = time.monotonic()
        done = atp("dev", state_dir=tmp_path / "state", port=port)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"port {port} is taken" in done.stderr
    assert "PORT=" in done.stderr
    assert time.monotonic() - started < 5
    assert not (tmp_path / "state").exists()


async def test_the_printed_curl_line_of_a_task_is_taken_and_done(tmp_path: Path, llm_server: Llm) -> None:
    with dev(tmp_path / "state", rate_limit_api="1000/second", **models_of(llm_server)) as running:
        async with httpx2.AsyncClient(base_url=running.url, headers={"x-api-key": running.key}, timeout=10) as http:
            (task_id,) = json.loads(await asyncio.to_thread(running.curl, "/api/v1/tasks"))["ids"]
            found: dict[str, Any] = {}

            async def over() -> bool:
                await asyncio.sleep(0.2)  # the model needs the cores
                found.update((await http.get(f"/api/v1/tasks/{task_id}")).json())
                return found["status"] not in ("queued", "running")

            await eventually(over, within_s=50)
        assert (found["status"], found["attempts"]) == ("done", 1)
        assert "Paris" in found["result"]["answer"]


def test_another_model_server_is_used_when_it_is_configured(tmp_path: Path, llm_server: Llm) -> None:
    with dev(tmp_path / "state", **models_of(llm_server)) as running:
        assert "Small LLM" not in running.banner
        assert "Paris" in running.curl()


def test_the_state_folder_is_its_owners_only(tmp_path: Path) -> None:
    with dev(tmp_path / "state") as running:
        assert running.process.poll() is None
        state = tmp_path / "state"
        assert state.stat().st_mode & 0o777 == 0o700
        for secret in (state / "secret" / "admin-key", state / "env"):
            assert secret.stat().st_mode & 0o777 == 0o600
            assert os.access(secret, os.R_OK)
