"""What changes around the apps: who holds what, what is written and remembered, and what is erased."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ringwall import Principal
from tests.leaks.doing import Wish
from tests.leaks.machine import APPS, DRESSES, MANY_CLUBS, SOME_CLUBS, SOME_READERS, SOMEBODY, Asking
from tests.leaks.town import CLUBS, HOUR, PEOPLE, RECEIVERS, SINKS, TENANTS


class Changing(Asking):
    """Holdings, documents, memories, profiles and time."""

    @rule(who=st.sampled_from(PEOPLE), clubs=SOME_CLUBS)
    def give_to_somebody(self, who: Principal, clubs: frozenset[str]) -> None:
        self.life.give({who: clubs})

    @rule(who=st.sampled_from(RECEIVERS), clubs=MANY_CLUBS)
    def give_to_a_receiver(self, who: Principal, clubs: frozenset[str]) -> None:
        self.life.give({who: clubs})

    @rule(who=st.sampled_from(SINKS), clubs=MANY_CLUBS)
    def give_to_a_sink(self, who: Principal, clubs: frozenset[str]) -> None:
        self.life.give({who: clubs})

    @rule(name=st.sampled_from("ab"), tenant=st.sampled_from(TENANTS), readers=SOME_READERS, dress=DRESSES)
    def write(self, name: str, tenant: str, readers: frozenset[str], dress: Any) -> None:
        self.happens(self.life.write(name, tenant, readers, dress))

    @precondition(lambda self: self.life.documents)
    @rule(place=st.integers(0, 3), readers=SOME_READERS)
    def relabel(self, place: int, readers: frozenset[str]) -> None:
        names = sorted(self.life.documents)
        self.happens(self.life.relabel(names[place % len(names)], readers))

    @rule(who=SOMEBODY, readers=st.none() | SOME_READERS, dress=DRESSES)
    def remember(self, who: Principal, readers: frozenset[str] | None, dress: Any) -> None:
        self.happens(self.life.remember(who, readers, dress))

    @rule(who=SOMEBODY, app=APPS)
    def change_the_profile(self, who: Principal, app: int) -> None:
        self.happens(self.life.change_profile(who))
        self.ask_what_is_often_asked(app, who)

    @rule(who=SOMEBODY)
    def forget(self, who: Principal) -> None:
        self.happens(self.life.apps[1].memories.forget(who))

    @rule(app=APPS, who=SOMEBODY, really=st.sampled_from([False] * 9 + [True]))
    def erase(self, app: int, who: Principal, really: bool) -> None:  # noqa: FBT001
        if really:
            self.remember(who, None, "")
            self.change_the_profile(who, app)
            self.happens(self.life.ask(app, who, Wish(), named=True))
            self.happens(self.life.erase(self.life.apps[app], who))
            self.look(app, who)
            self.ask_what_is_often_asked(app, who)

    @rule(app=APPS, who=SOMEBODY)
    def keep_an_answer_and_lose_what_it_rests_on(self, app: int, who: Principal) -> None:
        self.life.give({who: frozenset(CLUBS)})
        self.happens(self.life.write("a", who.tenant, frozenset(("role:staff",))))
        self.happens(self.life.ask(app, who, Wish(keeps=True), named=False))
        self.life.give({who: frozenset()})
        self.ask_what_is_often_asked(app, who)

    @rule(app=APPS, who=SOMEBODY)
    def ask_and_have_the_sinks_lose_all(self, app: int, who: Principal) -> None:
        watching = [sink for sink in SINKS if sink.tenant == who.tenant]
        self.life.give({who: frozenset(CLUBS), **dict.fromkeys(watching, frozenset(CLUBS))})
        self.happens(self.life.write("b", who.tenant, frozenset(("role:staff",))))
        for clubs in frozenset(CLUBS), frozenset[str]():
            self.life.give(dict.fromkeys(watching, clubs))
            self.ask_what_is_often_asked(app, who)

    @rule(readers=SOME_READERS)
    def what_is_peeked_at_has_other_readers(self, readers: frozenset[str]) -> None:
        self.life.outbox.peeked = readers

    @rule(hours=st.sampled_from([0.4, 0.7, 1.5, 3.0, 24.0]))
    def time_passes(self, hours: float) -> None:
        self.life.clock.now += hours * HOUR
