"""What people are asked: previews reach who may read them alone, and sessions at once never share a label."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL, Label, Principal, call, tool
from ringwall.deployment.desk import Bounds
from ringwall.deployment.limits import Limit
from ringwall.errors import UnknownRun
from ringwall.interface import Change
from ringwall.model.scripted import Line
from tests.scenes import app_with, chunk, library

CLUBS = ("collection:red", "collection:blue", "role:staff")
WORD = "secret-preview"
HELD = st.frozensets(st.sampled_from(CLUBS))
READERS = st.frozensets(st.sampled_from(CLUBS), min_size=1)
BASE = """
allow user:* ask app:app
ask user:* call tool:*
grant tool:* collection:questions
allow user:* approve tool:*
allow user:* audit app:app
"""


def rules(held: dict[str, frozenset[str]]) -> str:
    lines = [f"{'member' if c.startswith('role:') else 'grant'} user:{name} {c}" for name in held for c in held[name]]
    return "\n".join([BASE, *(f"grant user:{name} collection:questions" for name in held), *lines])


@settings(max_examples=100, deadline=None)
@given(READERS, READERS, HELD, HELD)
def test_a_preview_is_told_to_who_may_read_the_results_and_what_the_change_says(
    of_results: frozenset[str], of_change: frozenset[str], asker: frozenset[str], approver: frozenset[str]
) -> None:
    asyncio.run(preview(of_results, of_change, {"ana": asker, "mia": approver}))


async def preview(of_results: frozenset[str], of_change: frozenset[str], held: dict[str, frozenset[str]]) -> None:
    def difference(text: str) -> Change:
        return Change(WORD, text, label=Label.of(ACL(of_change), "doc:vault"))

    @tool(effect="write", label=Label.of(ACL(of_results)), preview=difference)
    def edit(text: str) -> str:
        "Edit."
        return "edited"

    people = {name: Principal.user(name) for name in held}
    may = {name: bool(of_results & held[name]) and bool(of_change & held[name]) for name in held}
    script: list[Line] = [call("edit", text="new"), "Done."]
    async with app_with(script, rules=rules(held), tools=[edit]) as app:
        told = {"ana": repr(await app.ask("edit", as_=people["ana"], run="r"))}
        told["mia"] = repr(await app.waiting(as_=people["mia"]))
        assert "edit" in told["mia"]
        for name, who in people.items():
            told[name] += repr(await app.events("r", as_=who)) + repr(await app.explain("r", as_=who))
            assert (WORD in told[name]) == may[name]
        await app.approve("r", by=people["mia"])
        done = await app.resume("r") if of_results & held["ana"] else None
        assert WORD not in repr(done)
        assert all("vault" not in q.label.influence for q in await app.waiting(as_=people["mia"]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=8))
def test_sessions_at_once_share_no_label(sessions: list[int]) -> None:
    asyncio.run(at_once(sessions))


async def at_once(sessions: list[int]) -> None:
    names = [f"user{n}" for n in range(4)]
    documents = await library(*(chunk(f"the word of {n}", f"user:{n}", document=f"{n}.md") for n in names))

    @tool(effect="write", label=Label())
    async def note(text: str) -> str:
        "Note."
        await asyncio.sleep(0)
        return text

    runs = [(f"r{place}", names[number]) for place, number in enumerate(sessions)]
    app = app_with(
        lambda request: "Done." if request.messages[-1].type == "tool" else call("note", text="x"),
        rules=BASE + "ask doc:* call tool:note\n" + "\n".join(f"grant tool:note user:{name}" for name in names),
        tools=[note],
        documents=documents,
    )
    async with app:
        await asyncio.gather(*(app.ask("the word?", as_=Principal.user(n), run=run) for run, n in runs))
        for run, name in runs:
            kinds = [event.kind for event in await app.events(run, as_=Principal.user(name))]
            assert kinds.count("call.asked") == 1
            for event in await app.events(run, as_=Principal.user(name)):
                others = [other for other in names if other != name]
                assert not any(f"user:{other}" in event.label or f"{other}.md" in event.label for other in others)
                assert event.kind != "call.asked" or f"doc:{name}.md" in event.label
            for stranger in set(names) - {name}:
                try:
                    told = repr(await app.events(run, as_=Principal.user(stranger)))
                except UnknownRun:
                    continue
                assert f"the word of {name}" not in told


STANDING = """
allow user:* ask app:app
allow doc:* call tool:edit
ask user:* call tool:edit
grant user:* collection:questions
grant tool:* collection:questions
allow user:mia approve tool:edit
allow user:mia standing tool:edit
member user:mia role:boss
member tool:* role:boss
"""


async def test_a_rule_that_stands_is_told_to_no_run_that_has_not_read_what_it_says() -> None:
    @tool(effect="write", label=Label())
    async def edit(text: str) -> str:
        "Edit."
        return "edited"

    boss, texts = Principal.user("bo", "boss"), iter([WORD, "else"])
    ana, mia = Principal.user("ana"), Principal.user("mia")
    app = app_with(
        lambda request: "Done." if request.messages[-1].type == "tool" else call("edit", text=next(texts)),
        rules=STANDING,
        tools=[edit],
        documents=await library(chunk(f"the word is {WORD}", "role:boss", document="word.md")),
    )
    async with app:
        await app.ask("the word?", as_=boss, run="first")
        bounds = Bounds(
            1, 60, {"text": Limit("in", [WORD, "else"])}, frozenset(("doc:word.md", boss.id, ana.id)), "public"
        )
        rule = await app.draft("first", by=mia, bounds=bounds)
        await app.approve("first", by=mia, standing=rule)
        done = await app.ask("the word?", as_=ana, run="second")
        assert done.text == "Done."
        told = repr(await app.events("second", as_=ana)) + repr(await app.explain("second", as_=ana))
        assert WORD not in told
        assert "user:mia let it stand" in told
