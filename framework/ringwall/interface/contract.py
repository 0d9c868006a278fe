"""What every tool must pass. Subclass, give a tool and arguments that fit it, run pytest.

    class TestMyTool(ToolContract):
        @pytest.fixture
        def tool(self) -> Tool:
            return MyTool()

        @pytest.fixture
        def arguments(self) -> Mapping[str, JSON]:
            return {"degrees": 21}

The contract runs the tool: give it one that may be run. Needs pytest, pytest-asyncio and hypothesis.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Mapping
from typing import Final, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringwall.errors import InvalidInput
from ringwall.interface.base import CallContext, Change, Effect, Tool
from ringwall.schema import JSON

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""The names that every model's interface takes."""

_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
_values = st.recursive(_scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3))
_examples = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class ToolContract:
    """A tool says truly what it takes, refuses the rest before it does anything, and returns text."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def tool(self) -> Tool:
        raise NotImplementedError("override the fixture `tool` with a tool that may be run")

    @pytest.fixture
    def arguments(self) -> Mapping[str, JSON]:
        """Arguments that fit, as a model would write them: all that the tool knows."""
        raise NotImplementedError("override the fixture `arguments` with some that fit the tool")

    def context(self, key: str = "key") -> CallContext:
        """What the framework hands to `run`."""
        return CallContext("run", "0.0", "user:ana", key, deadline=30.0)

    async def test_a_model_can_be_told_of_it(self, tool: Tool) -> None:
        assert NAME.fullmatch(tool.name)
        assert tool.description.strip()
        schema = json.loads(json.dumps(tool.parameters))
        assert schema["type"] == "object"
        assert set(schema.get("required", ())) <= set(schema.get("properties", {}))

    async def test_what_the_gate_must_know_is_said_in_its_terms(self, tool: Tool) -> None:
        assert isinstance(tool.effect, Effect)
        assert tool.timeout > 0
        known = set(cast("Mapping[str, JSON]", tool.parameters.get("properties", {})))
        assert set(tool.control_arguments) <= known
        assert set(tool.recipients) <= set(tool.control_arguments)

    async def test_arguments_that_fit_are_taken_and_left_as_they_are(
        self, tool: Tool, arguments: Mapping[str, JSON]
    ) -> None:
        given_ = copy.deepcopy(dict(arguments))
        assert isinstance(tool.check(given_), Mapping)
        assert given_ == arguments

    async def test_an_invented_argument_is_refused(self, tool: Tool, arguments: Mapping[str, JSON]) -> None:
        with pytest.raises(InvalidInput):
            tool.check({**arguments, "an_argument_nobody_knows": 1})

    async def test_a_missing_argument_is_refused(self, tool: Tool, arguments: Mapping[str, JSON]) -> None:
        for name in cast("list[str]", tool.parameters.get("required", ())):
            with pytest.raises(InvalidInput):
                tool.check({n: value for n, value in arguments.items() if n != name})

    @_examples
    @given(data=st.data())
    async def test_whatever_a_model_writes_fits_or_is_refused_as_invalid_input(
        self, tool: Tool, arguments: Mapping[str, JSON], data: st.DataObject
    ) -> None:
        written = {name: data.draw(st.just(value) | _values) for name, value in arguments.items()}
        with contextlib.suppress(InvalidInput):
            assert isinstance(tool.check(written), Mapping)

    async def test_it_returns_text(self, tool: Tool, arguments: Mapping[str, JSON]) -> None:
        assert isinstance(await tool.run(tool.check(arguments), self.context()), str)

    async def test_a_preview_says_the_same_again_for_it_changed_nothing(
        self, tool: Tool, arguments: Mapping[str, JSON]
    ) -> None:
        first = await tool.preview(tool.check(arguments), self.context())
        assert first is None or isinstance(first, str | Change)
        assert await tool.preview(tool.check(arguments), self.context()) == first

    async def test_the_same_call_again_returns_the_same_if_it_says_so(
        self, tool: Tool, arguments: Mapping[str, JSON]
    ) -> None:
        if not tool.idempotent:
            pytest.skip(f"{tool.name} does not claim to be idempotent")
        first = await tool.run(tool.check(arguments), self.context())
        assert await tool.run(tool.check(arguments), self.context()) == first

    async def test_a_call_is_taken_back_if_it_says_so(self, tool: Tool, arguments: Mapping[str, JSON]) -> None:
        if not tool.undoable:
            pytest.skip(f"{tool.name} does not claim that its calls can be taken back")
        result = await tool.run(tool.check(arguments), self.context())
        told = await tool.undo(tool.check(arguments), result, self.context("undo"))
        assert isinstance(told, str)
        if tool.idempotent:
            assert await tool.undo(tool.check(arguments), result, self.context("undo")) == told


__all__ = ["ToolContract"]
