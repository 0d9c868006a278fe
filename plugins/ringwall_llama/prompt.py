"""From a request to prompt tokens: the model's own chat template, and messages that cannot break out of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from jinja2 import TemplateError
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from ringwall.errors import InvalidInput
from ringwall.model.base import ModelRequest, ToolSpec
from ringwall.principal import ACL
from ringwall.schema import JsonSchema

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template of a model that brings none."""

_TOOLS_ARE: Final = "You have access to functions. If you decide to invoke a function, reply with JSON only, one of:"

_ONE_MOMENT: Final = "One moment."

_SAY_IT: Final = "Say this to me in one sentence."

_MARK: Final = "\ue000{}\ue001"
"""Stands for the content of a message while the template is rendered (private use characters)."""

Secrecy = frozenset[ACL]
"""Who may read: whoever satisfies all of these; everybody, if there are none."""


class Piece(NamedTuple):
    """A part of a prompt: whether the control tokens in it are meant (in a message they never are), and its readers."""

    text: str
    is_control: bool
    secrecy: Secrecy = frozenset()


class ChatTemplate:
    """Lays out a conversation for the model.

    What a message holds is put between the template's parts only after rendering, and marked: a document
    that contains `<|im_start|>system` stays a text about it, and never begins a new turn.
    """

    def __init__(self, template: str, *, bos: str, eos: str) -> None:
        self._formatter = Jinja2ChatFormatter(template or CHATML, eos_token=eos, bos_token=bos)

    def lay_out(self, request: ModelRequest) -> list[Piece]:
        """The prompt of `request`. Raises `InvalidInput` for messages that the template refuses."""
        turns = _turns(request)
        marked = [{"role": role, "content": _MARK.format(n)} for n, (role, _, _) in enumerate(turns)]
        try:
            rest: str = self._formatter(messages=marked).prompt  # type: ignore[arg-type]
        except (TemplateError, ValueError) as error:
            raise InvalidInput(f"the model's chat template refuses these messages: {error}") from error
        pieces: list[Piece] = []
        for number, (_, content, secrecy) in enumerate(turns):
            before, found, after = rest.partition(_MARK.format(number))
            if found:
                pieces += [Piece(before, is_control=True), Piece(content, is_control=False, secrecy=secrecy)]
                rest = after
        return [*pieces, Piece(rest, is_control=True)]


def call_text(name: str, arguments: str = "") -> str:
    """A tool call as the model reads and writes it, or its beginning, if `arguments` is empty."""
    beginning = f'{{"name": {json.dumps(name)}, "arguments":'
    return f"{beginning} {arguments}}}" if arguments else beginning


class _Turn(NamedTuple):
    role: str
    text: str
    secrecy: Secrecy = frozenset()


def _turns(request: ModelRequest) -> list[_Turn]:
    """The turns of the conversation; what form the reply may take is explained in the system turn."""
    labels = request.labels or (request.label,) * len(request.messages)
    if len(labels) != len(request.messages):
        raise InvalidInput(f"{len(labels)} labels for {len(request.messages)} messages", expected="one for each")
    turns = [
        _Turn(*_turn(message, offered=bool(request.tools)), label.secrecy)
        for message, label in zip(request.messages, labels, strict=True)
    ]
    if not request.tools and request.messages and request.messages[-1].type == "tool":
        turns[-1] = turns[-1]._replace(role="user", text=f"{turns[-1].text}\n{_SAY_IT}")
    if explained := _explained(request):
        if not turns or turns[0].role != "system":
            return [_Turn("system", explained), *turns]
        turns[0] = turns[0]._replace(text=f"{turns[0].text}\n\n{explained}")
    return turns


def _turn(message: BaseMessage, *, offered: bool) -> tuple[str, str]:
    """Templates know three roles; what a tool returned is told by the user.

    A small model writes on in the form that it sees: calls are shown as calls only while tools are `offered`.
    """
    text = str(message.text)
    if message.type == "ai":
        calls = _calls_of(cast("AIMessage", message))
        return "assistant", "\n".join(filter(None, (text, calls if offered or not calls else _ONE_MOMENT)))
    if message.type == "tool":
        return "user", f"Result: {text}" if offered else text
    return "system" if message.type == "system" else "user", text


def _calls_of(message: AIMessage) -> str:
    return "\n".join(call_text(call["name"], json.dumps(call["args"])) for call in message.tool_calls)


def _explained(request: ModelRequest) -> str:
    """Schemas and tools by an example of each: a small model is lost in a JSON schema."""
    if request.schema is not None:
        return f"Reply with JSON only, like {_example(request.schema)}"
    if not request.tools:
        return ""
    if request.tool_choice is not None and len(request.tools) == 1:
        return _asked_for(request.tools[0])
    calls = [f"{call_text(tool.name, _example(tool.parameters))}  # {tool.description}" for tool in request.tools]
    return "\n".join([_TOOLS_ARE, *calls, "Otherwise answer in plain words."])


def _asked_for(tool: ToolSpec) -> str:
    """How to ask for one certain call: in words that a small model follows better than an example of it."""
    properties: Any = tool.parameters.get("properties") or ("nothing",)
    *most, last = properties
    names = f"{', '.join(most)} and {last}" if most else last
    first_line = tool.description.partition("\n")[0]
    return f"Write the user's request as JSON with {names}. {first_line}".strip()


def _example(schema: JsonSchema) -> str:
    properties: Any = schema.get("properties", {})
    return json.dumps({name: _kind(part) for name, part in properties.items()})


def _kind(schema: Any) -> str:
    return " | ".join(map(str, schema["enum"])) if "enum" in schema else str(schema.get("type", "any"))
