"""What every guard must pass. Shipped to plugin authors; needs pytest, pytest-asyncio and hypothesis.

class TestMyGuard(GuardContract):
    words = ("ana@example.org", "AKIA")        # what it looks for, and pieces of that

    @pytest.fixture
    def guard(self) -> Guard: ...
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringwall.deployment.guard import Crossing, Guard, Passing
from ringwall.principal import Principal

_ANA: Final = Principal.user("ana")
_OFTEN: Final = (
    "a",
    " ",
    "\n",
    ".",
    "[",
    "](",
    "https://evil.example/?q=1",
    "<",
    "{",
    "}",
    '"',
    "1",
    "é",
    "夜",
    "\u200d",
)
_KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_properties: Final = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
)


@pytest.mark.asyncio
class GuardContract:
    """Override the fixture `guard`, and `words` with what it looks for and with pieces of that."""

    words: ClassVar[Sequence[str]] = ()

    @pytest.fixture
    def guard(self) -> Guard:
        raise NotImplementedError("return the guard to be checked")

    async def test_it_has_a_name_and_stands_somewhere(self, guard: Guard) -> None:
        assert _KIND.fullmatch(guard.name)
        assert guard.crossings <= frozenset(Crossing)
        assert guard.crossings
        assert guard.timeout > 0

    @_properties
    @given(st.data())
    async def test_it_says_the_same_of_the_same_text(self, guard: Guard, data: st.DataObject) -> None:
        for passing in self._passings(guard, data):
            assert await guard.inspect(passing) == await guard.inspect(passing)

    @_properties
    @given(st.data())
    async def test_it_leaves_its_own_output_as_it_is(self, guard: Guard, data: st.DataObject) -> None:
        for passing in self._passings(guard, data):
            once = await guard.inspect(passing)
            if not once.refused:
                assert (await guard.inspect(replace(passing, text=once.text))).text == once.text

    @_properties
    @given(st.data())
    async def test_it_names_what_it_found_by_kind_and_never_by_the_text(
        self, guard: Guard, data: st.DataObject
    ) -> None:
        for passing in self._passings(guard, data):
            for kind, count in (await guard.inspect(passing)).found.items():
                assert _KIND.fullmatch(kind)
                assert count > 0

    @_properties
    @given(st.data())
    async def test_a_text_in_pieces_passes_as_the_whole_does(self, guard: Guard, data: st.DataObject) -> None:
        for passing in self._passings(guard, data):
            whole = await guard.inspect(passing)
            pieces, offset = [], 0
            for end in sorted(data.draw(st.sets(st.integers(0, len(passing.text)), max_size=8))):
                cut = guard.settled(passing.text[offset:end], passing.crossing)
                assert 0 <= cut <= max(end - offset, 0)
                if cut:
                    part = replace(passing, text=passing.text[offset : offset + cut], offset=offset)
                    pieces.append(await guard.inspect(part))
                    offset += cut
            rest = replace(passing, text=passing.text[offset:], offset=offset)
            pieces.append(await guard.inspect(rest))
            assert any(piece.refused for piece in pieces) == whole.refused
            if not whole.refused:
                assert "".join(piece.text for piece in pieces) == whole.text

    def _passings(self, guard: Guard, data: st.DataObject) -> list[Passing]:
        """A text at each crossing where the guard stands."""
        text = data.draw(
            st.lists(st.sampled_from((*_OFTEN, *self.words)) | st.text(max_size=3), max_size=12).map("".join)
        )
        return [Passing(text, crossing, _ANA, "model:far", remote=True) for crossing in sorted(guard.crossings)]


__all__ = ["GuardContract"]
