"""A call with a condition is made if that holds, and is caused by everything that the condition was read from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringwall import RunStatus
from ringwall.errors import BadReply
from ringwall_sql import SqlJournal
from tests.deployment.office import ANA, DEPUTY, RULES, Office, call, plan_of, read_from, step, taken
from tests.deployment.test_plans import kinds_of

LIST = step("list", "files")
SIZE = taken("list", "size", where={"name": "contract.txt"})


def when(left: Any, how: str, right: Any = None) -> dict[str, Any]:
    """A condition."""
    return {"when": {"left": left, "is": how, **({} if how == "empty" else {"right": right})}}


LONG: dict[str, Any] = {"when": {"left": SIZE, "is": ">", "right": 50}}


def tell(name: str = "go", **more: Any) -> dict[str, Any]:
    """Tell Bo, under a condition."""
    return step(name, "send", to=["bo@example.org"], text="hello") | more


def says(value: bool) -> Callable[[str, str], bool]:  # noqa: FBT001 (what it says)
    """A reader that says so, whatever it is shown."""
    return lambda ask, text: value


TOLD = [("send", ["bo@example.org"])]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (when(SIZE, ">", 50), True),
        (when(SIZE, ">", 90), False),
        (when(SIZE, ">=", 90), True),
        (when(SIZE, "<", 90), False),
        (when(SIZE, "<=", 90.0), True),
        (when(SIZE, "==", 90), True),
        (when(SIZE, "!=", 90), False),
        (when(SIZE, "==", None), False),
        (when(taken("list", "name", pick="all"), "contains", "rota.txt"), True),
        (when(taken("list", "name", pick="largest size"), "contains", "rota"), False),
        (when(taken("list", "id", where={"name": "none.txt"}, pick="all"), "empty"), True),
        (when(taken("list", "id", where={"name": "rota.txt"}, pick="all"), "empty"), False),
        ({"when": {"not": when(SIZE, ">", 50)["when"]}}, False),
        ({"when": {"all": [when(SIZE, ">", 50)["when"], when(SIZE, "<", 50)["when"]]}}, False),
        ({"when": {"any": [when(SIZE, ">", 50)["when"], when(SIZE, "<", 50)["when"]]}}, True),
    ],
    ids=str,
)
async def test_a_call_is_made_only_if_its_condition_holds(condition: Any, *, holds: bool) -> None:
    for by_code in (True, False):
        office, plan, rules = Office(), plan_of(LIST, tell(**condition)), RULES + "allow tool:* declassify to:*\n"
        rules += "allow tool:* call tool:send\n"
        rules = rules.replace("ask   tool:* call tool:send\n", "")
        moves = (call("files"), call("send", to=["bo@example.org"], text="hello"))
        app = office.executing(plan, rules=rules) if by_code else office.acting(plan, *moves, rules=rules)
        async with app:
            assert (await app.ask("tell bo@example.org hello if so", as_=ANA)).status is RunStatus.DONE
        assert office.done == (TOLD if holds else [])


async def test_a_condition_on_a_trusted_field_is_not_asked_about_and_one_on_what_others_wrote_is() -> None:
    office = Office()
    async with office.executing(plan_of(LIST, tell(**LONG))) as app:
        assert (await app.ask("tell bo@example.org if the contract is long", as_=ANA)).status is RunStatus.DONE
    assert office.done == TOLD
    said = taken("list", "content", where={"name": "contract.txt"})
    rules = RULES + "allow tool:* declassify to:*\n"
    async with office.executing(plan_of(LIST, tell(**when(said, "contains", "thief"))), rules=rules) as app:
        result = await app.ask("tell bo@example.org if the contract names a thief", as_=ANA)
        (question,) = result.waiting
        assert question.influences["$when"] == ("record:drive", "tool:files", "user:ana")
        assert "tool:files" not in question.influences["text"]
        assert office.done == TOLD
        await app.approve(result.run, by=DEPUTY)
        assert (await app.resume(result.run)).status is RunStatus.DONE
    assert office.done == TOLD * 2


@pytest.mark.parametrize(
    "condition",
    [
        when(read_from("list", "is it urgent?", "boolean"), "==", True),
        when(read_from("list", "is it urgent?", "boolean", fields=["id"]), "==", True),
        when(taken("list", "id", pick="all"), "contains", 13),
        when(taken("list", "id", where={"name": "none.txt"}, pick="all"), "empty"),
        when(taken("list", "id", pick="last"), ">", 13),
        when(taken("list", "size", pick="largest size"), ">", 13),
        {"when": {"any": [when(SIZE, ">", 50)["when"], when(taken("list", "content", pick="all"), "empty")["when"]]}},
    ],
    ids=str,
)
async def test_what_tells_which_records_there_are_or_what_they_say_is_asked_about(condition: Any) -> None:
    office = Office()
    rules = RULES + "allow tool:* declassify to:*\n"
    async with office.executing(plan_of(LIST, tell(**condition)), read=lambda ask, text: True, rules=rules) as app:
        assert (await app.ask("tell bo@example.org if so", as_=ANA)).waiting
    assert office.done == []


async def test_a_call_that_is_not_made_is_told_of_and_so_is_what_takes_from_it() -> None:
    office = Office()
    plan = plan_of(
        LIST,
        step("more", "files", name="notes") | when(SIZE, "<", 50),
        step("go", "delete", file=taken("more", "id")),
        step("tell", "send", to=["bo@example.org"], text=read_from("more", "what it says")),
        tell("always"),
    )
    async with office.executing(plan, read=lambda ask, text: "read") as app:
        result = await app.ask("delete my notes if the contract is short", as_=ANA)
        explained = await app.explain(result.run, as_=ANA)
        events = await app.events(result.run, as_=ANA)
    assert office.done == TOLD
    assert 'files was not made: list[name == "contract.txt"].size < 50 does not hold' in result.text
    assert "delete was not made: 'more' was not made" in result.text
    assert [event.kind for event in events].count("plan.skipped") == 3
    assert [outcome.what for outcome in explained.outcomes if outcome.kind == "not made"] == ["files", "delete", "send"]
    assert all("record:drive" in outcome.sources for outcome in explained.outcomes if outcome.kind == "not made")
    assert len(office.requests) == 1  # nothing was read for what is not done


async def test_an_explanation_tells_the_condition_of_a_call_that_was_made() -> None:
    async with Office().executing(plan_of(LIST, tell(**LONG))) as app:
        result = await app.ask("tell bo@example.org if the contract is long", as_=ANA)
        explained = await app.explain(result.run, as_=ANA)
    assert any("size > 50, and that holds" in outcome.why[0] for outcome in explained.outcomes if outcome.why)


async def test_of_two_branches_a_reading_is_shown_the_one_that_was_taken() -> None:
    office, texts = Office(), list[str]()
    plan = plan_of(
        LIST,
        step("short", "files", name="rota") | when(SIZE, "<", 50),
        step("long", "files", name="contract") | when(SIZE, ">=", 50),
        answer={"$read": ["short", "long"], "ask": "which?"},
    )

    def read(ask: str, text: str) -> str:
        texts.append(text)
        return "that one"

    async with office.executing(plan, read=read) as app:
        result = await app.ask("look at the rota, or at the contract if it is long", as_=ANA)
    assert result.text.startswith("that one")
    assert "contract.txt" in texts[0]
    assert "rota.txt" not in texts[0]


async def test_a_call_for_each_is_made_for_those_for_which_its_condition_holds() -> None:
    office = Office()
    each = {"each": taken("list", "", pick="all"), **when({"$item": "size"}, "<", 50)}
    plan = plan_of(LIST, step("go", "delete", file={"$item": "id"}) | each)
    async with office.executing(plan) as app:
        result = await app.ask("delete the short files", as_=ANA)
        assert result.status is RunStatus.DONE
        assert (await kinds_of(app, result.run)).count("plan.skipped") == 1
    assert office.done == [("delete", file) for file in (7, 21, 34, 55)]
    office = Office()
    moves = (call("files"), *(call("delete", file=n) for n in (13, 7, 21)))
    async with office.acting(plan, *moves) as app:
        assert (await app.ask("delete the short files", as_=ANA)).status is RunStatus.DONE
    assert office.done == [("delete", 7), ("delete", 21)]


async def test_values_of_different_types_are_not_compared_and_the_call_is_left_out() -> None:
    for left, how, right in ((SIZE, "<", "50"), (SIZE, "==", "90"), (SIZE, "contains", 9), (SIZE, "empty", None)):
        office = Office()
        async with office.executing(plan_of(LIST, tell(**when(left, how, right)))) as app:
            assert "left out: a condition compares number" in (await app.ask("tell bo if so", as_=ANA)).text
        assert office.done == []


async def test_what_is_no_condition_is_no_plan_and_never_taken_for_no_condition() -> None:
    bad: list[Any] = [
        {}, [], "", False, 1, {"left": 1, "is": "~", "right": 1}, {"left": 1, "is": "<"}, {"all": []}, {"any": {}},
        {"left": 1, "is": "empty", "right": 1}, {"left": 1, "is": "<", "right": 1, "not": 1},
        {"left": {"$item": "id"}, "is": "==", "right": 1}, {"left": taken("later", "id"), "is": "==", "right": 1},
        {"left": {"$from": ["list"]}, "is": "==", "right": 1}, {"left": 1, "is": ["<"], "right": 1},
    ]  # fmt: skip
    for one in [*({"when": each} for each in bad), {"if": True}]:
        office = Office()
        async with office.executing(plan_of(LIST, tell(**one))) as app:
            with pytest.raises(BadReply):
                await app.ask("tell bo@example.org if so", as_=ANA)
        assert office.done == []


async def test_an_agent_makes_the_call_once_it_is_known_that_the_condition_holds_and_not_before() -> None:
    office = Office()
    send = call("send", to=["bo@example.org"], text="hello")
    async with office.acting(plan_of(LIST, tell(**LONG)), send, call("files"), send, send) as app:
        result = await app.ask("tell bo@example.org if the contract is long", as_=ANA)
        kinds = await kinds_of(app, result.run)
    assert office.done == TOLD
    assert kinds.count("call.refused") == 2  # before it was known, and the second time


async def test_an_agents_condition_on_what_must_be_read_is_read_at_the_desk_and_asked_about() -> None:
    send, rules = call("send", to=["bo@example.org"], text="hello"), RULES + "allow tool:* declassify to:*\n"
    plan = plan_of(LIST, tell(**when(read_from("list", "is it urgent?", "boolean"), "==", True)))
    for moves, urgent, asked in (
        ((call("files"), send), True, True),
        ((call("files"), send), False, False),  # whatever the agent has read
        ((send,), True, False),  # nothing can be read yet
    ):
        office = Office()
        async with office.acting(plan, *moves, read=says(urgent), rules=rules) as app:
            waiting = (await app.ask("tell bo@example.org if it is urgent", as_=ANA)).waiting
        assert [question.influences["$when"] for question in waiting] == (
            [("record:drive", "tool:files", "user:ana")] if asked else []
        )
        assert office.done == []


async def test_an_agent_may_go_on_with_either_branch_and_what_reads_from_both() -> None:
    short = step("short", "files", name="rota") | when(SIZE, "<", 50)
    long = step("long", "files", name="contract") | when(SIZE, ">=", 50)
    which = {"$read": ["short", "long"], "ask": "which?", "schema": {"type": "integer"}, "fields": ["id"]}
    plan = plan_of(LIST, short, long, step("go", "delete", file=which))
    moves = (call("files"), call("files", name="rota"), call("files", name="contract"), call("delete", file=13))
    office = Office()
    async with office.acting(plan, *moves, read=lambda ask, text: 13) as app:
        result = await app.ask("delete the rota, or the contract if it is long", as_=ANA)
        refused = [event for event in await app.events(result.run, as_=ANA) if event.kind == "call.refused"]
    assert office.done == [("delete", 13)]
    assert [json.loads(event.body)["arguments"] for event in refused] == ['{"name":"rota"}']


async def test_an_agent_does_not_choose_by_leaving_out_a_call_for_one_of_several() -> None:
    plan = plan_of(
        step("all", "files", name={"$item": ""}) | {"each": ["rota", "contract"]},
        step("go", "delete", file=taken("all", "id", pick="largest size")),
    )
    rota, contract = call("files", name="rota"), call("files", name="contract")
    office = Office()
    moves = (rota, call("delete", file=7), contract, call("delete", file=7), call("delete", file=13))
    async with office.acting(plan, *moves) as app:
        assert (await app.ask("delete the larger of rota and contract", as_=ANA)).status is RunStatus.DONE
    assert office.done == [("delete", 13)]


async def test_a_run_that_is_picked_up_decides_as_before_and_tells_it_once(tmp_path: Path) -> None:
    office = Office()
    rules = RULES + "allow tool:* declassify to:*\n"
    plan = plan_of(
        LIST,
        step("gone", "delete", file=7) | when(SIZE, "<", 50),
        tell("ask", **when(read_from("list", "urgent?", "boolean"), "==", True)),
        step("last", "delete", file=taken("list", "id", pick="largest size")) | when(SIZE, ">", 50),
        step("none", "delete", file=21) | when(read_from("list", "urgent?", "boolean"), "==", False),
    )

    def app() -> Any:
        journal = SqlJournal(tmp_path / "journal.db")
        return office.executing(plan, read=lambda ask, text: True, rules=rules, journal=journal)

    async with app() as first:
        result = await first.ask("delete 7 if the contract is short; tell bo@example.org if it is urgent", as_=ANA)
        assert result.status is RunStatus.WAITING
    asked = len(office.requests)
    async with app() as second:
        await second.approve(result.run, by=DEPUTY)
    async with app() as third:
        assert (await third.resume(result.run)).status is RunStatus.DONE
        assert (await third.resume(result.run)).status is RunStatus.DONE
        kinds = await kinds_of(third, result.run)
    assert office.done == [*TOLD, ("delete", 13)]
    assert kinds.count("plan.skipped") == 2
    assert len(office.requests) == asked
