"""OpenAI's API in front of the same agents and models: `/v1/chat/completions` and `/v1/models`.

Reference: OpenAI API, "Create chat completion", "The chat completion chunk object", "List models".
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from service.agents.catalogue import CREATED_S, Catalogue
from service.agents.messages import Answer
from service.agents.runner import Question, Runner
from service.errors import AtpError, NotFound
from service.http.contract import answers
from service.http.etag import entity_tag, unless_known
from service.http.openai_errors import openai_error
from service.http.operation import Call
from service.http.problems import problem
from service.routes.answering import Answering
from service.routes.catalogue import CACHED, keeping
from service.routes.chat import caller
from service.routes.chats import Chat, Event, cache_headers
from service.routes.completion_answers import (
    Choice,
    Completion,
    CompletionUsage,
    Head,
    OpenAIModel,
    OpenAIModels,
    Said,
    answers_completion,
)
from service.routes.completion_requests import CompletionRequest, has_context
from service.routes.streaming import Streaming

AGENT_PREFIX = "agent:"
END = b"data: [DONE]\n\n"


class CompletionRoutes:
    """The lists are kept as those of CatalogueRoutes, for `max_age_s`."""

    def __init__(
        self, catalogue: Catalogue, runner: Runner, answering: Answering, streaming: Streaming, max_age_s: int
    ) -> None:
        self._runner, self._answering, self._streaming = runner, answering, streaming
        self._headers = keeping(max_age_s)
        names = [(f"{AGENT_PREFIX}{agent}", "atp") for agent in catalogue.agents]
        names += [(model.id, model.provider.name) for model in catalogue.models.values()]
        models = {name: model_object(name, owner) for name, owner in names}
        self._models = {name: to_json(model) for name, model in models.items()}
        self._list = to_json(OpenAIModels(object="list", data=list(models.values())))

    @answers_completion
    async def create(self, call: Call[CompletionRequest]) -> Response:
        """Answer a conversation, as OpenAI's API does."""
        body = call.body
        question = self._question(body)
        chat = self._answering.begin_direct(caller(call), question, context=has_context(body.conversation()))
        words = Words(chat, body)
        if body.stream:
            return await self._streaming.respond(call, chat, words.stream, error_chunk)
        outcomes = await self._streaming.whole(call, chat)
        chat.raise_if_all_failed()
        answer = outcomes[0].item
        assert isinstance(answer, Answer)  # noqa: S101 - raised otherwise; mypy cannot know
        return Response(to_json(words.whole(answer)), headers=cache_headers(chat), media_type="application/json")

    @answers(OpenAIModels, conditional=True, tells=CACHED)
    async def list_models(self, call: Call[None]) -> Response:
        """List what may be asked for as `model`: every agent, every model."""
        return unless_known(call.request, self._list, entity_tag(self._list), self._headers)

    @answers(OpenAIModel, conditional=True, tells=CACHED)
    async def model(self, call: Call[None]) -> Response:
        """Describe one of them."""
        name = call.request.path_params["model"]
        if name not in self._models:
            raise NotFound(f"The model {name!r} does not exist.", param="model", openai_code="model_not_found")
        found = self._models[name]
        return unless_known(call.request, found, entity_tag(found), self._headers)

    def _question(self, body: CompletionRequest) -> Question:
        try:
            if body.model.startswith(AGENT_PREFIX):
                agent = body.model.removeprefix(AGENT_PREFIX)
                return self._runner.question(agent, body.conversation(), None, body.parameters())
            return self._runner.direct(body.model, body.conversation(), body.parameters())
        except NotFound:
            detail = f"The model {body.model!r} does not exist."
            raise NotFound(detail, param="model", openai_code="model_not_found") from None


def model_object(name: str, owner: str) -> OpenAIModel:
    return {"id": name, "object": "model", "created": CREATED_S, "owned_by": owner}


def data(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % to_json(document)


def error_chunk(error: AtpError, request_id: str) -> bytes:
    return data(openai_error(problem(error, request_id)))


class Words:
    """How one completion is written; every chunk of a stream has the same id."""

    def __init__(self, chat: Chat, body: CompletionRequest) -> None:
        self._chat, self._body = chat, body
        self._head: Head = {"id": f"chatcmpl-{chat.meter.id.hex}", "created": int(time.time()), "model": body.model}
        self._with_usage = bool(body.stream_options and body.stream_options.include_usage)

    def whole(self, answer: Answer) -> Completion:
        message = Said(role="assistant", content=answer.text, refusal=None)
        choice = Choice(index=0, message=message, logprobs=None, finish_reason=answer.finish_reason)
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage()}

    async def stream(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
        """Chunks, then `[DONE]` once the usage is durable; an error is the last thing said."""
        begun = failed = False
        async with aclosing(events):
            async for name, fields in events:
                if not begun and name in ("delta", "answer"):
                    begun = True
                    yield self._chunk({"role": "assistant", "content": ""})
                if name == "error":
                    failed = True
                    yield data(openai_error(fields["error"]))
                elif not failed:
                    yield self._said(name, fields)
        if not failed:
            yield END

    def _said(self, name: str, fields: dict[str, Any]) -> bytes:
        if name == "delta":
            return self._chunk({"content": fields["text"]})
        if name == "answer":
            return self._chunk({}, fields["finish_reason"])
        return self._event([], self._usage()) if self._with_usage else b""

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])

    def _event(self, choices: list[dict[str, Any]], usage: CompletionUsage | None = None) -> bytes:
        document: dict[str, Any] = {**self._head, "object": "chat.completion.chunk", "choices": choices}
        if self._with_usage:
            document["usage"] = usage  # null until the last chunk
        return data(document)

    def _usage(self) -> CompletionUsage:
        meter = self._chat.meter
        total = meter.tokens_in + meter.tokens_out
        return {"prompt_tokens": meter.tokens_in, "completion_tokens": meter.tokens_out, "total_tokens": total}
