"""OpenAI's chat completions over HTTP, for any server that speaks them.

Why aiohttp and not an SDK: docs/decisions/0002-model-client.md has the measurements.
Reference: OpenAI API, "Create chat completion"; streams are server-sent events (WHATWG HTML, section 9.2).
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from service.agents.messages import Answer, Delta, Item, Prompt, Tokens, estimate
from service.agents.sse import data_lines
from service.errors import UpstreamError, UpstreamTimeout
from service.settings import Settings

# More than any model takes or gives; a server that claims more, or less than nothing, is not believed.
MOST_TOKENS = 100_000_000
# Below the 5 s after which common servers (uvicorn) close an idle connection, so that no call meets a closing one:
# asking a second time could pay twice.
KEEP_ALIVE_S = 4.0
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}")


class UpstreamUsage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def tokens(self) -> Tokens | None:
        credible = 0 <= self.prompt_tokens <= MOST_TOKENS and 0 <= self.completion_tokens <= MOST_TOKENS
        return Tokens(self.prompt_tokens, self.completion_tokens) if credible else None


class UpstreamText(BaseModel):
    content: str | None = None


class UpstreamChoice(BaseModel):
    """None where the field is absent: a default model would be copied anew for every token."""

    message: UpstreamText | None = None
    delta: UpstreamText | None = None
    finish_reason: str | None = None


class UpstreamBody(BaseModel):
    """The part of an answer, whole or a streamed piece, that ATP reads."""

    choices: list[UpstreamChoice]
    usage: UpstreamUsage | None = None
    model: Any = None

    def model_name(self) -> str:
        """It goes into traces: what is no name is none."""
        return self.model if isinstance(self.model, str) and MODEL_NAME.fullmatch(self.model) else ""


class OpenAIClient:
    """Implements ModelClient. Use as a context manager: the connection pool lives inside."""

    def __init__(self, settings: Settings) -> None:
        self._first_s, self._gap_s = settings.llm_first_token_timeout, settings.llm_gap_timeout
        self._total_s, self._connect_s = settings.llm_total_timeout, settings.llm_connect_timeout
        self._max_bytes = settings.llm_max_response_bytes
        self._max_connections = settings.llm_max_connections

    async def __aenter__(self) -> "OpenAIClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=KEEP_ALIVE_S),
            # The deadlines are ours (asyncio.timeout); connecting is the one part only the library can see.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def complete(self, prompt: Prompt, headers: Mapping[str, str]) -> Answer:
        with upstream_errors():
            async with asyncio.timeout(self._total_s), self._post(prompt, headers, stream=False) as response:
                body = parse(await self._read(response))
        if not (body.choices and body.choices[0].message):
            raise UpstreamError("The model server sent no answer.")
        text = body.choices[0].message.content or ""
        tokens = body.usage.tokens() if body.usage else None
        reason = body.choices[0].finish_reason or "stop"
        return Answer(text, tokens or estimate(prompt, len(text)), reason, model=body.model_name())

    async def stream(self, prompt: Prompt, headers: Mapping[str, str]) -> AsyncGenerator[Item, None]:
        pieces: list[str] = []
        tokens, finish_reason, model = None, "", ""
        async with contextlib.aclosing(self._bodies(prompt, headers)) as bodies:
            async for body in bodies:
                tokens = body.usage.tokens() if body.usage else tokens
                model = model or body.model_name()
                for choice in body.choices[:1]:
                    finish_reason = choice.finish_reason or finish_reason
                    if choice.delta and choice.delta.content:
                        pieces.append(choice.delta.content)
                        yield Delta(choice.delta.content)
        if not finish_reason:
            raise UpstreamError("The model server ended its answer before it was whole.")
        text = "".join(pieces)
        yield Answer(text, tokens or estimate(prompt, len(text)), finish_reason, model=model)

    async def _bodies(self, prompt: Prompt, headers: Mapping[str, str]) -> AsyncGenerator[UpstreamBody, None]:
        """The stream's parsed events, each awaited under the deadline that applies to it."""
        loop = asyncio.get_running_loop()
        ends_at, size = loop.time() + self._total_s, 0
        with upstream_errors():
            async with (
                asyncio.timeout(min(self._first_s, self._total_s)) as deadline,
                self._post(prompt, headers, stream=True) as response,
            ):
                async for data in data_lines(response.content.iter_any()):
                    size += len(data)
                    if size > self._max_bytes:
                        raise UpstreamError("The model server's answer is too large.")
                    if data == b"[DONE]":
                        return
                    # A timeout that fired while our reader works would cancel the reader instead of this wait.
                    deadline.reschedule(None)
                    yield parse(data)
                    deadline.reschedule(min(ends_at, loop.time() + self._gap_s))

    @contextlib.asynccontextmanager
    async def _post(
        self, prompt: Prompt, more: Mapping[str, str], *, stream: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        provider = prompt.model.provider
        headers = {"content-type": "application/json", "accept-encoding": "identity", **more}
        if provider.api_key:
            headers["authorization"] = f"Bearer {provider.api_key}"
        url = f"{provider.base_url}/chat/completions"
        body = request_body(prompt, stream)
        # A redirect would carry prompt and key to an address that nobody configured.
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise refusal(response.status)
            yield response

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._max_bytes:
                raise UpstreamError("The model server's answer is too large.")
            chunks.append(chunk)
        return b"".join(chunks)


def request_body(prompt: Prompt, stream: bool) -> bytes:
    body: dict[str, Any] = {
        "model": prompt.model.id,
        "messages": [message.document() for message in prompt.messages],
        **prompt.model.provider.extra_body,
        **prompt.parameters.model_dump(exclude_none=True),
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return to_json(body)


def parse(data: bytes) -> UpstreamBody:
    try:
        return UpstreamBody.model_validate_json(data)
    except ValidationError:
        raise UpstreamError("The model server sent something that is not an answer.") from None


def refusal(status: int) -> UpstreamError:
    """The upstream's own words may carry its secrets; its status is enough for the caller."""
    retry_after_s = 1.0 if status in (429, 503) else None
    return UpstreamError(f"The model server answered {status}.", retry_after_s=retry_after_s, upstream_status=status)


@contextlib.contextmanager
def upstream_errors() -> Iterator[None]:
    """Translate aiohttp's errors and timeouts to ours, once."""
    try:
        yield
    except aiohttp.ServerTimeoutError as error:
        raise UpstreamTimeout("The model server could not be reached in time.") from error
    except TimeoutError as error:
        raise UpstreamTimeout("The model server did not answer in time.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError("The model server cannot be reached or broke off.") from error
