"""People who answer what runs ask: once, for good, about who is told; and what they are told on that occasion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from ringwall import App, Principal
from ringwall.deployment.desk import Bounds
from ringwall.deployment.limits import Limit
from ringwall.deployment.runlog import event_body
from ringwall.errors import RingwallError
from tests.leaks.doing import Run
from tests.leaks.life import Life
from tests.leaks.town import HOUR, PEOPLE, TENANTS, TOOLS
from tests.leaks.world import QUESTIONS
from tests.leaks.yeses import Asked, Stand


def _first(text: str) -> str:
    return text.partition(" ")[0]


How = Literal["approve", "deny", "happened", "did not happen", "declassify"]

LIMITS: Final[dict[str, tuple[Callable[[str, str], Limit], Callable[[str, str, str], bool]]]] = {
    "as it was": (lambda text, that: Limit("=", text), lambda text, that, other: other == text),
    "this or that": (lambda text, that: Limit("in", [text, that]), lambda text, that, other: other in (text, that)),
    "anything": (lambda text, that: Limit("any"), lambda text, that, other: True),
    "what begins so": (
        lambda text, that: Limit("like", f"{_first(text)}*"),
        lambda text, that, other: other.startswith(_first(text)),
    ),
}
"""How far the text of a call that is let stand may be another: as its author says it, and as it is meant."""


SOURCES: Final = frozenset((
    *(who.id for who in PEOPLE),
    *(f"tool:{name}" for name in TOOLS),
    *(f"doc:{tenant}::{name}.md" for tenant in TENANTS for name in "ab"),
))  # fmt: skip
"""Whatever could have shaped a call."""


@dataclass(frozen=True)
class Far:
    """How far a yes is to reach; `widely` is for whatever sources there are."""

    limit: str = "as it was"
    who: str | None = None
    uses: int = 1
    hours: int = 24
    widely: bool = True
    this_run: bool = False

    def bounds(self, text: str, that: str) -> Bounds:
        limits = {"text": LIMITS[self.limit][0](text, that)}
        sources = SOURCES if self.widely else None
        return Bounds(self.uses, self.hours * HOUR, limits, sources, self.who, self.this_run)


class People:
    """Everybody at the desk."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def answer(self, place: int, run: Run, by: Principal, how: How) -> None:
        """Somebody answers what a run asks, and says something with it."""
        note = self._life.witness.new("note", (run.who.id, QUESTIONS), run.who.tenant)
        app, asked = self._life.app_of(run, place), await self._asked(run)
        if await self._does(run, by, self._door(app, run, by, how, note)):
            self._life.witness.told[how] += 1
            if how == "approve" and asked is not None:
                self._life.yeses.approved(asked, by)
            elif how == "declassify" and asked is not None:
                self._life.yeses.declassified(asked, by)

    async def let_stand(self, place: int, run: Run, by: Principal, far: Far, that: Run | None = None) -> None:
        """Somebody answers yes for good, perhaps with a look at what another run asks."""
        witness = self._life.witness
        note = witness.new("note", (run.who.id, QUESTIONS), run.who.tenant)
        app, asked = self._life.app_of(run, place), await self._asked(run)
        if asked is None or asked.tool != "book":
            return
        text, other = asked.arguments["text"], None if that is None else await self._asked(that)
        also = "" if other is None else other.arguments["text"]

        async def stand() -> None:
            rule = await app.draft(run.id, by=by, bounds=far.bounds(text, also))
            witness.hears(by, "draft", rule, rule.line, run=run.id, asker=run.who)
            await app.approve(run.id, by=by, note=note, standing=rule)
            self._life.yeses.approved(asked, by)
            (id_,) = (each.id for each in await app.desk.rules.all() if each.rule == rule and each.run == run.id)
            until = self._life.clock() + far.hours * HOUR
            who, within = far.who or run.who.id, run.id if far.this_run else ""
            admits = partial(LIMITS[far.limit][1], text, also)
            meant = Stand(by, "book", who, within, admits, rule.sources, far.uses, until)
            self._life.yeses.let_stand(id_, meant, asked)

        if await self._does(run, by, stand()):
            witness.told["let stand"] += 1

    async def revoke(self, place: int, by: Principal, which: int) -> None:
        """Somebody takes back a rule that stands, whether or not it is shown it."""
        for app in (self._life.apps[place], self._life.apps[2]):
            rules = await app.desk.rules.all()
            if rules:
                each = rules[which % len(rules)]
                run = next(run for run in self._life.runs if run.id == each.run)
                if await self._does(run, by, app.revoke(each.id, by=by)):
                    self._life.yeses.revokes(each.id, by)
                    self._life.witness.told["revoked"] += 1

    @staticmethod
    def _door(app: App, run: Run, by: Principal, how: How, note: str) -> Any:
        if how == "approve":
            return app.approve(run.id, by=by, note=note)
        if how == "deny":
            return app.deny(run.id, by=by, note=note)
        if how == "declassify":
            return app.declassify(run.id, by=by, note=note)
        return app.resolve(run.id, by=by, happened=how == "happened", result=note)

    async def _does(self, run: Run, by: Principal, work: Any) -> bool:
        """Whether somebody was let do something; what it is told if not is held against what it may be told."""
        try:
            await work
        except RingwallError as error:
            said = [str(error), repr(error), vars(error), error.__cause__, error.__context__]
            self._life.witness.hears(by, "approver's error", *said, run=run.id, asker=run.who)
            return False
        return True

    async def _asked(self, run: Run) -> Asked | None:
        """What a run asks, as the journal has it."""
        try:
            events = await self._life.apps[0].journal.read(run.id)
        except RingwallError:
            return None
        bodies = [event_body(event) for event in events if event.kind == "call.asked" and event.body]
        return Asked.of(run.id, run.who, bodies[-1]) if bodies and "kind" in bodies[-1] else None
