"""Whatever the plan, the records and the model: what is done is what the plan means, and no thief has a hand in it.

What each plan means, and who could have shaped it, is worked out here a second time, from words that tell where they
come from: the labels of the framework are not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL, App, Label, Pipeline, Principal, Rules, ScriptedModel, Tool, call, tool
from ringwall.errors import RingwallError
from ringwall.interface.meaning import same
from ringwall.interface.origin import origin_from_json, origin_to_json
from ringwall.interface.plan import TaskPlan
from ringwall.model import ModelRequest
from ringwall.model.scripted import Line
from ringwall.planning import PLAN_SCHEMA, ExecutePlan, MakePlan
from ringwall.schema import JSON
from ringwall.steps import Agent, Compose

ANA = Principal.user("ana")
OWN = ACL(("user:ana", "role:own"))
RULES = """
allow user:ana ask app:app
allow user:ana call tool:*
allow record:* call tool:*
allow tool:* call tool:look
member tool:* role:own
grant tool:* collection:questions
"""

KEYS = ("key-0", "key-1", "key-2")
TEXTS = ("evil-0", "evil-1", "evil-2")
RECORDS = [{"key": key, "text": text} for key, text in zip(KEYS, TEXTS, strict=True)]
VALUES = st.sampled_from([*KEYS, *TEXTS, "word-0", "word-1"])

ARGUMENTS = st.one_of(
    st.sampled_from(["word-0", "word-1"]),
    st.builds(
        lambda path, name, value: {"$from": "look", "field": path, "where": {name: value}},
        st.sampled_from(["key", "text"]),
        st.sampled_from(["key", "text"]),
        st.sampled_from([*KEYS, *TEXTS]),
    ),
    st.builds(
        lambda path, pick: {"$from": "look", "field": path, "pick": pick},
        st.sampled_from(["key", "text"]),
        st.sampled_from(["first", "last", "largest key", "smallest text"]),
    ),
    st.builds(
        lambda fields, ask: {"$read": ["look"], "ask": ask, **({"fields": fields} if fields else {})},
        st.sampled_from([[], ["key"], ["text"]]),
        st.sampled_from(["a", "b"]),
    ),
)
PLANS = st.lists(st.tuples(ARGUMENTS, ARGUMENTS), min_size=1, max_size=3)
MOVES = st.lists(st.tuples(st.sampled_from(["act", "look"]), VALUES, VALUES), max_size=6)
ANSWERS = st.fixed_dictionaries({"a": VALUES, "b": VALUES})


def meant(argument: Any) -> str | None:
    """The value that an argument means if no thief has a hand in it; None if one has, or nothing is meant."""
    if isinstance(argument, str):
        return argument
    if "$read" in argument:
        return None  # see `read_of_keys`
    how = argument.get("pick", "")
    if argument["field"] == "text" or "text" in argument.get("where", {}) or how in ("first", "last", "smallest text"):
        return None
    if how:
        return KEYS[-1]
    wanted = argument["where"]["key"]
    return wanted if wanted in KEYS else None


def read_of_keys(argument: Any) -> bool:
    return isinstance(argument, dict) and argument.get("fields") == ["key"]


def means_something(argument: Any) -> bool:
    """Whether there is a value at all: no record says another one's words."""
    where = argument.get("where", {}) if isinstance(argument, dict) else {}
    return all(value in (KEYS if name == "key" else TEXTS) for name, value in where.items())


def play(
    plan: Sequence[tuple[Any, Any]], moves: Sequence[Line], answers: dict[str, str], *, by_code: bool
) -> list[str]:
    """Play a plan; what was done, by the control argument."""
    done: list[str] = []
    trusted = {"key": Label.of(OWN, "record:own")}

    @tool(effect="read", label=Label.of(OWN, "tool:look"), fields=trusted)
    async def look(where: str = "") -> list[dict[str, Any]]:
        """Look at the records."""
        return RECORDS

    @tool(control=("on",), label=Label())
    async def act(on: str, text: str) -> str:
        """Act on something."""
        done.append(on)
        return "done"

    calls = [{"name": f"act{n}", "tool": "act", "arguments": {"on": on, "text": t}} for n, (on, t) in enumerate(plan)]
    written = json.dumps({"calls": [{"name": "look", "tool": "look", "arguments": {}}, *calls]})

    def reply(request: ModelRequest) -> Line:
        if request.schema == PLAN_SCHEMA:
            return written
        if request.schema is not None:
            return json.dumps({"value": answers[str(request.messages[1].content)]})
        turn = sum(message.type == "ai" for message in request.messages)
        return moves[turn] if turn < len(moves) else "Done."

    steps: tuple[Any, ...] = (partial(MakePlan, by_code=True), ExecutePlan) if by_code else (MakePlan, Compose, Agent)
    tools: list[Tool] = [look, act]
    with (
        App(policy=Rules(RULES), model=ScriptedModel(reply), tools=tools, pipeline=Pipeline(*steps), name="app") as app,
        contextlib.suppress(RingwallError),
    ):
        app.ask_sync("do it", as_=ANA)
    return done


@settings(max_examples=60, deadline=None)
@given(PLANS, ANSWERS)
def test_code_does_what_the_plan_means_in_its_order_and_nothing_that_a_thief_could_have_shaped(
    plan: list[tuple[Any, Any]], answers: dict[str, str]
) -> None:
    made = [on for on, text in plan if means_something(text)]
    expected = [answers[on["ask"]] if read_of_keys(on) else meant(on) for on in made]
    assert play(plan, (), answers, by_code=True) == [value for value in expected if value is not None]


@settings(max_examples=60, deadline=None)
@given(PLANS, MOVES, ANSWERS)
def test_an_agent_does_no_more_than_its_plan_means_whatever_it_tries(
    plan: list[tuple[Any, Any]], moves: list[tuple[str, str, str]], answers: dict[str, str]
) -> None:
    may_be = [answers[on["ask"]] if read_of_keys(on) else meant(on) for on, _ in plan]
    allowed = [value for value in may_be if value is not None]
    tried = [call("look"), *(call("act", on=on, text=t) if what == "act" else call("look") for what, on, t in moves)]
    for value in play(plan, tried, answers, by_code=False):
        assert value in allowed
        allowed.remove(value)  # each planned call is made once


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1.0]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSONS)
def test_an_origin_comes_back_from_json_as_it_was(value: JSON) -> None:
    origin = origin_from_json(value)
    assert origin_from_json(json.loads(json.dumps(origin_to_json(origin)))) == origin


@given(PLANS)
def test_a_plan_comes_back_from_json_as_it_was(plan: list[tuple[Any, Any]]) -> None:
    calls = [{"tool": "act", "arguments": {"on": on, "text": text}} for on, text in plan]
    one = TaskPlan.from_json({"calls": [{"name": "look", "tool": "look"}, *calls], "answer": "done"})
    assert TaskPlan.from_json(json.loads(json.dumps(one.to_json()))) == one


@given(JSONS, JSONS)
def test_the_same_value_is_the_same_json(one: JSON, other: JSON) -> None:
    assert same(one, one)
    assert same(one, other) == same(other, one)
    if same(one, other):
        assert json.loads(json.dumps(one)) == json.loads(json.dumps(other))


async def test_plans_are_kept_apart_in_runs_that_go_on_at_once() -> None:
    plans = [[("word-0", "x")], [("word-1", "x")]]
    done = await asyncio.gather(*(asyncio.to_thread(play, plan, (), {}, by_code=True) for plan in plans))
    assert done == [["word-0"], ["word-1"]]
