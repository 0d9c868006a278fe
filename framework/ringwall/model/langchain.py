"""Both bridges to LangChain: any chat model is a provider, and any provider is a chat model.

Import this module by name; it loads LangChain's chat model classes, which the core does not need.
"""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from langsmith import tracing_context
from pydantic import PrivateAttr

from ringwall.errors import (
    BadReply,
    ContextOverflow,
    InvalidInput,
    ProviderRefused,
    ProviderUnavailable,
    RingwallError,
)
from ringwall.label import BOTTOM, Label
from ringwall.model.base import (
    ANY_TOOL,
    Ability,
    Delta,
    Location,
    ModelInfo,
    ModelProvider,
    ModelRequest,
    Price,
    Reply,
    RequestedCall,
    Sampling,
    ToolSpec,
    Usage,
)
from ringwall.model.reply import collect
from ringwall.schema import JsonSchema

T = TypeVar("T")

CountTokens = Callable[[Sequence[BaseMessage]], int]

_FREE: Final = Price()
_DEFAULT: Final = Sampling()

_SCHEMA_TOOL: Final = "reply"
"""The tool through which a chat model is made to answer by schema: every model with tools can."""


# ---- any chat model is a provider


def from_langchain(
    chat_model: BaseChatModel,
    *,
    window: int,
    location: Location,
    name: str = "",
    abilities: frozenset[Ability] | None = None,
    price: Price = _FREE,
    count_tokens: CountTokens = count_tokens_approximately,
) -> ModelProvider:
    """Make a provider of any LangChain chat model.

    `window` is its context window in tokens, and `count_tokens` how a prompt is measured against it: an
    estimate unless you give better. `abilities` are tools and JSON schema if the model can bind tools, unless
    you say otherwise. Sampling goes to the model as `temperature` and `max_tokens`, and where they differ from the
    default as `top_p`, `seed`, `stop` and `frequency_penalty`.
    """
    if abilities is None:
        has_tools = type(chat_model).bind_tools is not BaseChatModel.bind_tools
        abilities = frozenset((Ability.TOOLS, Ability.JSON_SCHEMA)) if has_tools else frozenset()
    info = ModelInfo(name or _name_of(chat_model), window, location, abilities, price)
    return _FromLangChain(chat_model, info, count_tokens)


def _name_of(chat_model: BaseChatModel) -> str:
    names = (getattr(chat_model, attribute, "") for attribute in ("model_name", "model"))
    return next((name for name in names if name and isinstance(name, str)), type(chat_model).__name__)


class _FromLangChain(ModelProvider):
    def __init__(self, chat_model: BaseChatModel, info: ModelInfo, count_tokens: CountTokens) -> None:
        self._chat_model, self._info, self._count_tokens = chat_model, info, count_tokens

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        tokens = self._count_tokens(request.messages)
        if tokens + request.sampling.max_tokens > self._info.window:
            raise ContextOverflow(tokens, self._info.window, reserved=request.sampling.max_tokens)
        begun, rest = False, list[AIMessageChunk]()
        # Whatever a chat model or its vendor's library raises has no common base: here is the edge.
        try:
            async with aclosing(self._chunks(request)) as chunks:
                async for chunk in chunks:
                    begun = True
                    if request.schema is None and chunk.text:
                        yield Delta(str(chunk.text))
                    rest.append(chunk.model_copy(update={"content": ""}))
        except RingwallError:
            raise
        except Exception as error:
            raise _mapped(error, provider=self._info.name, begun=begun, tokens=tokens, info=self._info) from error
        if not rest:
            raise BadReply("the chat model said nothing at all", provider=self._info.name)
        yield _last_delta(add_ai_message_chunks(*rest), request, self._info.name)

    async def _chunks(self, request: ModelRequest) -> AsyncGenerator[AIMessageChunk, None]:
        stream = self._bound(request).astream(list(request.messages), **_sampling_arguments(request.sampling))
        try:
            while True:
                # An environment variable must not send prompts to a tracer that no gate was asked about.
                with tracing_context(enabled=False):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return
                if not isinstance(chunk, AIMessageChunk):
                    chunk = AIMessageChunk(**chunk.model_dump(exclude={"type"}))
                yield chunk
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # declared an iterator, made as a generator

    def _bound(self, request: ModelRequest) -> Runnable[LanguageModelInput, Any]:
        tools, choice = request.tools, request.tool_choice
        if request.schema is not None:
            tools, choice = (ToolSpec(_SCHEMA_TOOL, "Give the answer.", request.schema),), _SCHEMA_TOOL
        if not tools:
            return self._chat_model
        chosen = {} if choice is None else {"tool_choice": "any" if choice == ANY_TOOL else choice}
        return self._chat_model.bind_tools([_as_openai(tool) for tool in tools], **chosen)


def _as_openai(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _sampling_arguments(sampling: Sampling) -> dict[str, Any]:
    """What differs from the default only: a chat model may not know the rarer arguments."""
    arguments: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
    if sampling.top_p != 1.0:
        arguments["top_p"] = sampling.top_p
    if sampling.seed is not None:
        arguments["seed"] = sampling.seed
    if sampling.stop:
        arguments["stop"] = list(sampling.stop)
    if sampling.frequency_penalty:
        arguments["frequency_penalty"] = sampling.frequency_penalty
    return arguments


def _last_delta(whole: AIMessageChunk, request: ModelRequest, provider: str) -> Delta:
    calls = tuple(
        RequestedCall(c["id"] or f"call-{uuid4().hex[:12]}", c["name"] or "", c["args"] or "{}")
        for c in whole.tool_call_chunks
    )
    spent = whole.usage_metadata
    cached = spent.get("input_token_details", {}).get("cache_read") if spent else 0
    usage = Usage(spent["input_tokens"], spent["output_tokens"], cached or 0) if spent else Usage()
    if request.schema is None:
        return Delta("", calls, usage, "tool_calls" if calls else _finish(whole.response_metadata))
    if not calls:
        raise BadReply("no JSON came where a schema asked for it", provider=provider)
    return Delta(calls[0].arguments, (), usage, "stop")


def _finish(metadata: Mapping[str, Any]) -> str:
    """`length` under the names that providers give it, else `stop`."""
    reasons = {str(metadata.get(key, "")).lower() for key in ("finish_reason", "stop_reason", "done_reason")}
    return "length" if reasons & {"length", "max_tokens"} else "stop"


def _mapped(error: Exception, *, provider: str, begun: bool, tokens: int, info: ModelInfo) -> RingwallError:
    """The error as Ringwall names it. LangChain's own say whether to retry; most SDKs give an HTTP status."""
    what = f"{type(error).__name__}: {error}"
    if type(error).__name__ == "ContextOverflowError":
        return ContextOverflow(max(tokens, info.window + 1), info.window)
    if begun:
        return BadReply(f"the reply stopped in the middle: {what}", provider=provider)
    if _may_pass(error):
        return ProviderUnavailable(what, provider=provider, retry_after=_retry_after(error))
    if isinstance(error, ValueError) and not _status(error):
        return BadReply(what, provider=provider, expected="a reply that can be parsed")
    return ProviderRefused(what, provider=provider)


def _may_pass(error: Exception) -> bool:
    retryable = getattr(error, "is_retryable", None)
    if isinstance(retryable, bool):
        return retryable
    if status := _status(error):
        return status in (408, 409, 425, 429) or status >= 500
    # Connection errors of HTTP libraries and SDKs are no OSErrors, but they are named alike.
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    return isinstance(error, OSError) or "Timeout" in names or "Connect" in names


def _status(error: Exception) -> int:
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", 0)
    return status if isinstance(status, int) else 0


def _retry_after(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return float(headers.get("retry-after", ""))
    except (AttributeError, TypeError, ValueError):
        return None


# ---- any provider is a chat model


def as_chat_model(provider: ModelProvider, *, label: Label = BOTTOM, sampling: Sampling = _DEFAULT) -> ChatRingwall:
    """Make a LangChain chat model of any provider.

    LangChain's messages carry no labels: `label` is what everything sent through this model is taken to be
    worth. `sampling` is the default, which `bind` and call arguments override.
    """
    return ChatRingwall(
        provider=provider,
        label=label,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop) or None,
        seed=sampling.seed,
        frequency_penalty=sampling.frequency_penalty,
    )


class ChatRingwall(BaseChatModel):
    """A model provider as a LangChain chat model.

    `invoke`, `stream`, `bind_tools` (`tool_choice` a tool's name or `any`), `with_structured_output` and the
    async twins work as everywhere in LangChain; errors are Ringwall's. A synchronous call runs on a thread
    of its own with an event loop of its own, so it may be made from anywhere.
    """

    provider: ModelProvider
    label: Label = BOTTOM
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: list[str] | None = None
    seed: int | None = None
    frequency_penalty: float = 0.0
    # A cache of LangChain's is keyed by text alone, not by who may see it.
    cache: Any = False

    _background: _Background = PrivateAttr(default_factory=lambda: _Background())

    @property
    def _llm_type(self) -> str:
        return "ringwall"

    @property
    def model(self) -> str:
        """The provider's name."""
        return self.provider.info.name

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        specs = tuple(_as_spec(convert_to_openai_tool(tool)) for tool in tools)
        return self.bind(tools=specs, tool_choice=_choice(tool_choice), **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with JSON that fits `schema`: through the provider's own schemas, or else through a tool."""
        if method == "function_calling" or Ability.JSON_SCHEMA not in self.provider.info.abilities:
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if kwargs:
            raise InvalidInput(f"with_structured_output got unknown arguments {sorted(kwargs)}")
        described = {"kwargs": {"method": method}, "schema": schema}
        llm = self.bind(schema=convert_to_json_schema(schema), ls_structured_output_format=described)
        parser: Runnable[Any, Any] = (
            PydanticOutputParser(pydantic_object=schema)
            if isinstance(schema, type) and is_basemodel_subclass(schema)
            else JsonOutputParser()
        )
        return _with_raw(llm, parser) if include_raw else llm | parser

    def _request(self, messages: Sequence[BaseMessage], stop: list[str] | None, options: Any) -> ModelRequest:
        stops = tuple(stop or self.stop or ())
        sampling = Sampling(
            options.get("temperature", self.temperature),
            options.get("top_p", self.top_p),
            options.get("max_tokens") or self.max_tokens,
            stops,
            options.get("seed", self.seed),
            options.get("frequency_penalty", self.frequency_penalty),
        )
        tools = tuple(options.get("tools", ()))
        choice, schema = options.get("tool_choice"), options.get("schema")
        return ModelRequest(tuple(messages), self.label, tools, choice, schema, sampling)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = await collect(self.provider.stream(self._request(messages, stop, kwargs)))
        message = _as_message(reply, self.model)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        calls = 0
        async with aclosing(self.provider.stream(self._request(messages, stop, kwargs))) as deltas:
            async for delta in deltas:
                chunk = ChatGenerationChunk(message=_as_chunk(delta, self.model, calls))
                calls += len(delta.calls)
                if run_manager:
                    await run_manager.on_llm_new_token(delta.text, chunk=chunk)
                yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._background.run(self._agenerate(messages, stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._background.iterate(self._astream(messages, stop, **kwargs)):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.message.text), chunk=chunk)
            yield chunk


def _as_spec(tool: dict[str, Any]) -> ToolSpec:
    function = tool["function"]
    parameters: JsonSchema = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolSpec(function["name"], function.get("description", ""), parameters)


def _choice(tool_choice: object) -> str | None:
    """LangChain's ways to say which tool: a name, `any`, `required`, True, or OpenAI's dictionary."""
    if isinstance(tool_choice, dict):
        return str(tool_choice["function"]["name"])
    if tool_choice in (True, "any", "required"):
        return ANY_TOOL
    return tool_choice if isinstance(tool_choice, str) and tool_choice not in ("auto", "none") else None


def _with_raw(llm: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """`raw`, `parsed` and `parsing_error`, one of the last two None."""
    parsed = RunnablePassthrough.assign(
        parsed=RunnableLambda(lambda both: both["raw"]) | parser, parsing_error=lambda _: None
    )
    unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")


def _as_usage(usage: Usage) -> UsageMetadata:
    total = usage.prompt + usage.completion
    counted = UsageMetadata(input_tokens=usage.prompt, output_tokens=usage.completion, total_tokens=total)
    if usage.cached:
        counted["input_token_details"] = {"cache_read": usage.cached}
    return counted


def _as_metadata(finish: str, model: str) -> dict[str, Any]:
    return {"finish_reason": finish, "model_name": model, "model_provider": "ringwall"}


def _as_message(reply: Reply, model: str) -> AIMessage:
    message = AIMessage(
        reply.text,
        usage_metadata=_as_usage(reply.usage),
        response_metadata=_as_metadata(reply.finish, model),
    )
    for call in reply.calls:
        try:
            arguments = json.loads(call.arguments)
            if not isinstance(arguments, dict):
                raise ValueError("not an object")
            message.tool_calls.append(tool_call(name=call.name, args=arguments, id=call.id))
        except ValueError as error:
            broken = invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error=str(error))
            message.invalid_tool_calls.append(broken)
    return message


def _as_chunk(delta: Delta, model: str, first: int) -> AIMessageChunk:
    """`first` is the number of the delta's first call in its reply."""
    return AIMessageChunk(
        content=delta.text,
        tool_call_chunks=[_as_call_chunk(call, number) for number, call in enumerate(delta.calls, first)],
        usage_metadata=_as_usage(delta.usage) if delta.usage else None,
        response_metadata=_as_metadata(delta.finish, model) if delta.finish else {},
        chunk_position="last" if delta.finish else None,
    )


def _as_call_chunk(call: RequestedCall, number: int) -> ToolCallChunk:
    return tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=number)


class _Background:
    """An event loop on a thread of its own, for callers that have none. It ends with its owner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> tuple[T, ...]:
            async for item in items:
                return (item,)
            return ()

        async def closing() -> None:
            await items.aclose()  # type: ignore[attr-defined]  # an iterator to LangChain, a generator to us

        try:
            while found := self.run(following()):
                yield found[0]
        finally:
            self.run(closing())

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(self._loop,), name="ringwall-sync", daemon=True)
                thread.start()
                weakref.finalize(self, _stop, self._loop, thread)
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.run_until_complete(loop.shutdown_asyncgens())  # a stream that nobody finished is closed, not leaked
    loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join()
