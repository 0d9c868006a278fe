"""The tools of the town: what each receiver is given through them is held against what it may be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Final

from ringwall import Label, Principal, tool
from ringwall.interface import FunctionTool
from ringwall.principal import ACL
from tests.leaks.doing import DOING, Doing, Trouble
from tests.leaks.spending import Spending
from tests.leaks.witness import Dress, Witness, dressed
from tests.leaks.yeses import Arguments, Yeses

STAFF = frozenset(("role:staff",))


class Outbox:
    """Tools, and what they find: new secrets, readable by whoever `peeked` says, the asker, or the staff.

    Made once, since a tool's schema takes its time, and opened anew for every life.
    """

    _witness: Witness
    _yeses: Yeses
    _spending: Spending
    _trouble: Trouble
    breaks: Callable[[], None]
    peeked: frozenset[str]
    dress: Dress

    def __init__(self) -> None:
        self.tools = self._tools()

    def opened(self, witness: Witness, yeses: Yeses, spending: Spending, trouble: Trouble) -> Outbox:
        """The same tools for another life."""
        self._witness, self._yeses, self._spending, self._trouble = witness, yeses, spending, trouble
        self.peeked, self.dress = STAFF, ""
        return self

    def _tools(self) -> list[FunctionTool]:
        nothing = Label()

        @tool(effect="write", control=(), label=nothing)
        async def post(text: str) -> str:
            return self._sent("post", "tool:post", {"text": text})

        @tool(effect="write", recipients=("to",), label=nothing)
        async def mail(text: str, to: str) -> str:
            return self._sent("mail", f"to:{to}", {"text": text, "to": to})

        @tool(effect="write", label=nothing)
        async def book(text: str) -> str:
            return self._sent("book", "tool:book", {"text": text})

        @tool(effect="read", label=nothing)
        async def peek(text: str) -> str:
            (found,) = self._found("peek", text, self.peeked)
            return found

        @tool(effect="read")
        async def look(text: str) -> str:
            (found,) = self._found("look", text, frozenset((DOING.get().who.id,)))
            return found

        @tool(effect="read", label=nothing, fields={"owner": nothing})
        async def find(text: str) -> str:
            owner, rest = self._found("find", text, STAFF, self.peeked)
            return json.dumps([{"owner": owner, "text": rest}])

        self._peek, self._find = peek, find
        return [post, mail, book, peek, look, find]

    def of(self, tenant: str) -> None:
        """Have the tools say who may read what they find for somebody of this tenant."""
        self._peek.label = Label.of(ACL.of(*self.peeked, tenant=tenant), "tool:peek")
        self._find.label = Label.of(ACL.of(*self.peeked, tenant=tenant), "tool:find")
        self._find.fields = {"owner": Label.of(ACL.of(*STAFF, tenant=tenant), "tool:find")}

    def _sent(self, name: str, receiver: str, arguments: Arguments) -> str:
        doing = DOING.get()
        self._receives(doing, name, Principal(receiver, doing.who.tenant), arguments)
        self._yeses.done(doing, name, arguments)
        self._may_fail(f"done {arguments}")
        return "done"

    def _found(self, name: str, text: str, *readers: frozenset[str]) -> list[str]:
        doing = DOING.get()
        tenant = doing.who.tenant
        self._receives(doing, name, Principal(f"tool:{name}", tenant), {"text": text})
        words = [self._witness.new("found", each, tenant, source=f"tool:{name}") for each in readers]
        self._witness.comes_to_know(doing.run, doing.who, words)
        self._may_fail(f"{words} {text}")
        return [dressed(word, self.dress) for word in words]

    def _receives(self, doing: Doing, name: str, receiver: Principal, arguments: Arguments) -> None:
        lifted = partial(self._yeses.lets, doing, name, arguments, receiver)
        self._witness.hears(receiver, "tool", arguments, run=doing.run, asker=doing.who, unless=lifted)
        self._spending.made(doing, name)
        if self._trouble.tools == "doubt":
            self.breaks()

    def _may_fail(self, told: str) -> None:
        if self._trouble.tools == "fail":
            raise ValueError(told)


OUTBOX: Final = Outbox()
