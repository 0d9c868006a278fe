"""A plan opens no way out: its reader and its recipients are told what they may receive, and nothing else."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL, App, Label, Pipeline, Rules, ScriptedModel, tool
from ringwall.errors import FlowDenied
from ringwall.model import Location, ModelRequest
from ringwall.planning import PLAN_SCHEMA, ExecutePlan, MakePlan
from ringwall.schema import JSON
from ringwall_guards import Pseudonyms
from tests.deployment.office import ANA, READERS, RULES, Office, call, plan_of, read_from, step, taken

SEND = plan_of(
    step("find", "files"),
    step("go", "send", to=["bo@example.org"], text=read_from("find", "all of it")),
)


def app_elsewhere(office: Office, rules: str, shown: list[str]) -> App:
    """The office with a hosted model, which keeps what it is shown, and tells all of it."""

    def reply(request: ModelRequest) -> str:
        text = " ".join(str(message.content) for message in request.messages)
        shown.append(text)
        return json.dumps(SEND) if request.schema == PLAN_SCHEMA else json.dumps({"value": text})

    model = ScriptedModel(reply, location=Location.REMOTE)
    steps = Pipeline(partial(MakePlan, by_code=True), ExecutePlan)
    return App(policy=Rules(rules), model=model, tools=office.tools, pipeline=steps, name="office")


async def test_a_hosted_reader_is_shown_nothing_that_it_may_not_receive() -> None:
    shown: list[str] = []
    rules = RULES + "grant model:* collection:questions\n"
    async with app_elsewhere(Office(), rules, shown) as app:
        with pytest.raises(FlowDenied):
            await app.ask("send bo@example.org all files", as_=ANA)
    assert len(shown) == 1  # the planner, which is shown the question alone
    assert "Monday" not in shown[0]


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(["declassify", "deputy", "questions"])))
def test_a_recipient_is_told_only_by_leave_or_if_it_holds_what_it_takes(leave: set[str]) -> None:
    office = Office()
    rules = RULES.replace("allow user:ana declassify to:*\n", "").replace("allow record:* declassify to:*\n", "")
    rules += "allow user:ana declassify to:*\n" if "declassify" in leave else ""
    rules += "member to:* role:deputy\n" if "deputy" in leave else ""
    rules += "grant to:* collection:questions\n" if "questions" in leave else ""
    with office.executing(SEND, read=lambda ask, text: "the rota", rules=rules) as app:
        app.ask_sync("send bo@example.org all files", as_=ANA)
    assert bool(office.done) == bool(leave & {"declassify", "deputy"})  # deputies hold the questions, too


@settings(max_examples=40, deadline=None)
@given(
    leave=st.sets(st.sampled_from(["declassify", "deputy", "questions"])),
    source=st.sampled_from(["size", "content", "read"]),
    holds=st.booleans(),
    by_code=st.booleans(),
)
def test_nobody_learns_from_being_told_anything_at_all_what_decided_it(
    leave: set[str], source: str, *, holds: bool, by_code: bool
) -> None:
    """The user's own words are sent, and whether they are tells a secret."""
    rules = RULES.replace("allow user:ana declassify to:*\n", "").replace("allow record:* declassify to:*\n", "")
    rules = rules.replace("ask   tool:* call tool:send\n", "allow tool:* call tool:send\n")
    rules += "grant to:* collection:questions\n"  # the words themselves may be told
    rules += "allow user:ana declassify to:*\nallow record:* declassify to:*\n" if "declassify" in leave else ""
    rules += "allow tool:* declassify to:*\n" if "declassify" in leave else ""
    rules += "member to:* role:deputy\n" if "deputy" in leave else ""
    secret = {
        "size": {"left": taken("find", "size", where={"name": "rota.txt"}), "is": "<", "right": 50},
        "content": {"left": taken("find", "content", where={"name": "rota.txt"}), "is": "contains", "right": "Ana"},
        "read": {"left": read_from("find", "is it so?", "boolean"), "is": "==", "right": True},
    }[source]
    when = secret if holds else {"not": secret}
    plan = plan_of(step("find", "files"), step("go", "send", to=["bo@example.org"], text="hello") | {"when": when})
    office = Office()
    moves = (call("files"), call("send", to=["bo@example.org"], text="hello"))
    app = (
        office.executing(plan, read=lambda ask, text: True, rules=rules)
        if by_code
        else office.acting(plan, *moves, read=lambda ask, text: True, rules=rules)
    )
    with app:
        app.ask_sync("tell bo@example.org hello if so", as_=ANA)
    assert bool(office.done) == (holds and bool(leave & {"declassify", "deputy"}))


async def test_that_a_call_is_not_made_is_told_to_nobody_who_may_not_know_what_decided_it() -> None:
    when = {"left": taken("find", "size", where={"name": "rota.txt"}), "is": ">", "right": 50}
    office = Office()
    plan = plan_of(step("find", "files"), step("go", "send", to=["bo@example.org"], text="hello") | {"when": when})
    async with office.executing(plan) as app:
        result = await app.ask("tell bo@example.org hello if so", as_=ANA)
        (skipped,) = [event for event in await app.events(result.run, as_=ANA) if event.kind == "plan.skipped"]
    assert office.done == []
    assert ["role:deputy", "user:ana"] in json.loads(skipped.label)["secrecy"]
    assert result.label.secrecy >= {READERS}


async def test_the_name_of_a_group_tells_nothing_of_what_its_calls_are_to_do() -> None:
    def told(people: list[JSON]) -> App:
        """The same moment for all, so that nothing else makes a difference."""
        rules = RULES + "allow tool:* declassify to:*"
        return Office().executing(plan, read=lambda ask, text: people, rules=rules, clock=lambda: 1e9)

    whom = read_from("find", "whom to tell", "array", fields=[])
    plan = plan_of(step("find", "files"), step("go", "send", to=[{"$item": ""}], text="hello") | {"each": whom})
    groups: list[set[str]] = []
    for other in ("eve@example.org", "ana@example.org"):
        async with told(["bo@example.org", other]) as app:
            waiting = (await app.ask("tell them", as_=ANA)).waiting
        assert len(waiting) == 2
        groups.append({question.group for question in waiting})
    assert groups[0] == groups[1]


PSEUDONYMS = """
allow user:* ask app:app
allow user:* call tool:*
allow tool:* call tool:send
grant user:* collection:questions
grant tool:* collection:questions
grant to:* collection:questions
grant model:* collection:questions
member model:* role:boss
member to:* role:staff
member model:* role:staff
member user:* role:boss
member user:* role:staff
"""


async def test_what_a_pseudonym_stands_for_comes_back_in_no_reading_that_was_not_given_it() -> None:
    sent: list[str] = []

    @tool(effect="read", label=Label.of(ACL(("role:boss",)), "tool:letters"))
    async def letters() -> str:
        "Letters."
        return "write to mole@example.org"

    @tool(effect="read", label=Label.of(ACL(("role:staff",)), "tool:notices"))
    async def notices() -> str:
        "Notices."
        return "write to desk@example.org"

    @tool(recipients=("to",), control=(), label=Label())
    async def send(to: str, text: str) -> str:
        "Send."
        sent.append(text)
        return "sent"

    plan = plan_of(
        step("boss", "letters"),
        step("staff", "notices"),
        step("one", "send", to="bo", text=read_from("boss", "all of it")),
        step("two", "send", to="bo", text=read_from("staff", "all of it")),
    )

    def guess(request: ModelRequest) -> str:
        return json.dumps(plan) if request.schema == PLAN_SCHEMA else json.dumps({"value": "[EMAIL_2] [EMAIL_3]"})

    model = ScriptedModel(guess, location=Location.REMOTE)
    steps = Pipeline(partial(MakePlan, by_code=True), ExecutePlan)
    app = App(
        policy=Rules(PSEUDONYMS), model=model, tools=[letters, notices, send], pipeline=steps, guards=[Pseudonyms()]
    )
    async with app:
        await app.ask("send bo the notices", as_=ANA)
    assert sent == ["[EMAIL_2] desk@example[.]org"]  # letters are not for bo, and neither is what stands in them
