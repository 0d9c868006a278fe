"""Tools from functions: the signature is the schema, the docstring the description."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, cast, get_type_hints, overload

from pydantic import ConfigDict, ValidationError, create_model

from ringwall.errors import ConfigurationError, InvalidInput
from ringwall.interface.base import CallContext, Change, Effect, Tool
from ringwall.label import Label
from ringwall.schema import JSON, JsonSchema

Function = Callable[..., Any]


class FunctionTool(Tool):
    """A tool made of a function, sync (run in a thread) or async.

    A parameter annotated `CallContext` is filled in by the framework and hidden from the model. `preview` is called
    with the same arguments but that one.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str = "",
        effect: Effect = Effect.IRREVERSIBLE,
        control: tuple[str, ...] | None = None,
        recipients: tuple[str, ...] = (),
        idempotent: bool = False,
        label: Label | None = None,
        fields: Mapping[str, Label] | None = None,
        timeout: float = 30.0,
        preview: Function | None = None,
    ) -> None:
        self.function, self._preview = function, preview
        self.name = name or function.__name__
        self.description = inspect.getdoc(function) or ""
        self.effect, self.idempotent, self.label, self.timeout = effect, idempotent, label, timeout
        self.control, self.recipients, self.fields = control, recipients, dict(fields or {})
        self._is_async = inspect.iscoroutinefunction(function)
        self._context_name, self._model = self._read_signature()
        self._check_names()
        self._undo: Function | None = None

    def undone_by(self, function: Function) -> Function:
        """Let `function`, sync or async, take a call back. Usable as a decorator; returns the function as it is.

        It is given those of the tool's arguments that it names, and `result` and a `CallContext` if it asks for them.
        Raises `ConfigurationError` for a parameter that is neither.
        """
        known = {*self._model.model_fields, "result"}
        asked = {name for name, hint in _hints(function).items() if hint is not CallContext}
        if unknown := asked - known:
            raise ConfigurationError(
                f"what undoes {self.name!r} asks for {', '.join(sorted(unknown))}",
                expected=f"some of: {', '.join(sorted(known))}, and a CallContext",
            )
        self._undo, self.undoable = function, True
        return function

    @cached_property
    def parameters(self) -> JsonSchema:
        return cast(JsonSchema, _without_titles(self._model.model_json_schema()))

    def check(self, arguments: Mapping[str, JSON]) -> Mapping[str, JSON]:
        try:
            checked = self._model.model_validate(arguments)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or self.name}: {e['msg']}" for e in error.errors())
            raise InvalidInput(f"the arguments of {self.name} do not fit: {problems}") from None
        return {name: getattr(checked, name) for name in type(checked).model_fields}

    async def preview(self, arguments: Mapping[str, JSON], context: CallContext) -> Change | str | None:
        if self._preview is None:
            return None
        told = await _called(self._preview, arguments)
        return told if isinstance(told, Change) or told is None else str(told)

    async def run(self, arguments: Mapping[str, JSON], context: CallContext) -> str:
        extra = {self._context_name: context} if self._context_name else {}
        if self._is_async:
            result = await self.function(**arguments, **extra)
        else:
            result = await asyncio.to_thread(self.function, **arguments, **extra)
        return result if isinstance(result, str) else _as_text(result)

    async def undo(self, arguments: Mapping[str, JSON], result: str, context: CallContext) -> str:
        if self._undo is None:
            return await super().undo(arguments, result, context)
        known: dict[str, Any] = {"result": result, **arguments}
        given = {name: context if hint is CallContext else known[name] for name, hint in _hints(self._undo).items()}
        if inspect.iscoroutinefunction(self._undo):
            undone = await self._undo(**given)
        else:
            undone = await asyncio.to_thread(self._undo, **given)
        return undone if isinstance(undone, str) else _as_text(undone)

    def _read_signature(self) -> tuple[str, Any]:
        hints = get_type_hints(self.function, include_extras=True)
        context, model_fields = "", {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            if name not in hints:
                raise ConfigurationError(
                    f"parameter {name!r} of tool {self.name!r} has no type",
                    hint="annotate it: the model is shown a schema made from the types",
                )
            if hints[name] is CallContext:
                context = name
            else:
                empty = parameter.default is inspect.Parameter.empty
                model_fields[name] = (hints[name], ... if empty else parameter.default)
        fields = cast("dict[str, Any]", model_fields)
        return context, create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)

    def _check_names(self) -> None:
        unknown = (set(self.control or ()) | set(self.recipients)) - set(self._model.model_fields)
        if unknown:
            raise ConfigurationError(
                f"tool {self.name!r} has no parameter {', '.join(sorted(unknown))}",
                expected=f"control and recipients out of: {', '.join(self._model.model_fields)}",
            )


@overload
def tool(function: Function, /) -> FunctionTool: ...


@overload
def tool(
    *,
    name: str = "",
    effect: Effect | Literal["read", "write", "irreversible"] = Effect.IRREVERSIBLE,
    control: tuple[str, ...] | None = None,
    recipients: tuple[str, ...] = (),
    idempotent: bool = False,
    label: Label | None = None,
    fields: Mapping[str, Label] | None = None,
    timeout: float = 30.0,
    preview: Function | None = None,
) -> Callable[[Function], FunctionTool]: ...


def tool(
    function: Function | None = None,
    /,
    *,
    name: str = "",
    effect: Effect | Literal["read", "write", "irreversible"] = Effect.IRREVERSIBLE,
    control: tuple[str, ...] | None = None,
    recipients: tuple[str, ...] = (),
    idempotent: bool = False,
    label: Label | None = None,
    fields: Mapping[str, Label] | None = None,
    timeout: float = 30.0,
    preview: Function | None = None,
) -> FunctionTool | Callable[[Function], FunctionTool]:
    """Make a tool of a function. What is not said is taken at its worst: irreversible, every argument control.

    `preview` is called with the same arguments, changes nothing, and says what the function would (`Tool.preview`).

    Raises `ConfigurationError` for a parameter without a type, or a control argument that is none.
    """

    def make(target: Function) -> FunctionTool:
        return FunctionTool(
            target,
            name=name,
            effect=Effect(effect),
            control=control,
            recipients=recipients,
            idempotent=idempotent,
            label=label,
            fields=fields,
            timeout=timeout,
            preview=preview,
        )

    return make if function is None else make(function)


def _hints(function: Function) -> dict[str, Any]:
    """The parameters of a function, each with its type; None for one without."""
    hints = get_type_hints(function)
    return {name: hints.get(name) for name in inspect.signature(function).parameters}


async def _called(function: Function, arguments: Mapping[str, JSON]) -> object:
    if inspect.iscoroutinefunction(function):
        return await function(**arguments)
    return await asyncio.to_thread(function, **arguments)


def _as_text(result: object) -> str:
    import json

    try:
        return json.dumps(result, ensure_ascii=False)
    except TypeError:
        return str(result)


def _without_titles(schema: Any) -> Any:
    """Drop the titles that pydantic derives from names: the model pays for each of them."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    return {
        key: {name: _without_titles(value) for name, value in properties.items()}
        if key == "properties" and isinstance(properties, dict)
        else _without_titles(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
