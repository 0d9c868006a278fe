"""Whatever the plan and the results: a call is made only if its condition holds, once the policy has seen it all.

What a condition means, and who could have shaped what it reads, is worked out here a second time, from the plan and the
records alone: neither the labels nor the comparisons of the framework are asked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL, App, Label, Pipeline, Principal, Rules, ScriptedModel, Tool, call, tool
from ringwall.deployment import Decision
from ringwall.errors import RingwallError
from ringwall.interface.conditions import when_from_json, when_to_json
from ringwall.model import ModelRequest
from ringwall.model.scripted import Line
from ringwall.planning import PLAN_SCHEMA, ExecutePlan, MakePlan
from ringwall.steps import Agent, Compose

ANA = Principal.user("ana")
OWN = ACL(("user:ana", "role:own"))
SOURCES = {"key": "record:key", "size": "record:size", "text": "tool:look"}
RULES = """
allow user:ana ask app:app
allow * call tool:*
member tool:* role:own
grant tool:* collection:questions
"""

Records = list[dict[str, Any]]
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["a", "b"]),
            "size": st.integers(0, 2),
            "text": st.sampled_from(["", "go", "stay"]),
        }
    ),
    max_size=3,
)
FIELDS = st.sampled_from(["key", "size", "text"])
TAKEN = st.one_of(
    st.builds(
        lambda path, key: {"$from": "look", "field": path, "where": {"key": key}}, FIELDS, st.sampled_from(["a", "b"])
    ),
    st.builds(
        lambda path, pick: {"$from": "look", "field": path, "pick": pick},
        FIELDS,
        st.sampled_from(["all", "first", "largest size"]),
    ),
    st.just({"$read": ["look"], "ask": "size", "schema": {"type": "integer"}, "fields": ["size"]}),
)
SIDES = st.one_of(TAKEN, st.integers(0, 2), st.sampled_from(["a", "go", None]))
COMPARED = st.one_of(
    st.builds(
        lambda left, how, right: {"left": left, "is": how, "right": right},
        SIDES,
        st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "contains"]),
        SIDES,
    ),
    st.builds(lambda left: {"left": left, "is": "empty"}, TAKEN),
)
WHENS = st.recursive(
    COMPARED,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=3,
)


class NoValueError(Exception):
    """There is none, or the comparison means nothing."""


def value_of(side: Any, records: Records, said: int) -> Any:
    """What a side of a comparison means."""
    if not isinstance(side, dict):
        return side
    if "$read" in side:
        return said
    found = [one for one in records if all(one[name] == value for name, value in side.get("where", {}).items())]
    pick = side.get("pick", "")
    if pick == "all":
        return [one[side["field"]] for one in found]
    if not found or (not pick and len(found) > 1):
        raise NoValueError
    one = max(enumerate(found), key=lambda at: (at[1]["size"], at[0]))[1] if pick.startswith("largest") else found[0]
    return one[side["field"]]


def truth(when: Any, records: Records, said: int) -> bool:
    """Whether a condition holds; each part must mean something."""
    if "not" in when:
        return not truth(when["not"], records, said)
    for name, joined in (("all", all), ("any", any)):
        if name in when:
            return joined([truth(part, records, said) for part in when[name]])
    left, how = value_of(when["left"], records, said), when["is"]
    if how == "empty":
        if isinstance(left, int):
            raise NoValueError
        return left in (None, "", [])
    right = value_of(when["right"], records, said)
    if how == "contains":
        if not isinstance(left, list) and not (isinstance(left, str) and isinstance(right, str)):
            raise NoValueError
        return bool(right in left)
    if how in ("==", "!=") and (type(left) is type(right) or left is None or right is None):
        return bool((left == right) == (how == "=="))
    if type(left) is not type(right) or not isinstance(left, int | str):
        raise NoValueError
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[how])


def sources(when: Any, records: Records) -> set[str]:
    """All who could have shaped what a condition reads, the user apart."""
    if "not" in when:
        return sources(when["not"], records)
    for name in ("all", "any"):
        if name in when:
            return set().union(*(sources(part, records) for part in when[name]))
    return set().union(*(_sources(when.get(side), records) for side in ("left", "right")))


def _sources(side: Any, records: Records) -> set[str]:
    if not isinstance(side, dict):
        return set()
    if "$read" in side:
        return {"tool:look"} | ({SOURCES["size"]} if records else set())
    if side.get("pick"):  # which records there are, and what they say if there are any
        return {"tool:look"} | ({SOURCES[side["field"]]} if records else set())
    return {SOURCES[side["field"]], SOURCES["key"]}


class Watched(Rules):
    """Rules that keep who was asked about for each tool since its last call."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.seen: dict[str, set[str]] = {}

    async def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, str] | None = None
    ) -> Decision:
        if action == "call":
            self.seen.setdefault(resource, set()).add(principal.id)
        return await super().decide(principal, action, resource, context or {})


Done = list[tuple[str, str, frozenset[str]]]


def play(calls: Sequence[Any], records: Records, said: int, moves: Sequence[Line] | None) -> Done:
    """Play a plan, by code or by an agent's moves; what was done, each with whom the policy was asked about for it."""
    done, policy = Done(), Watched(RULES)

    def note(name: str, on: str) -> str:
        done.append((name, on, frozenset(policy.seen.pop(f"tool:{name}", ()))))
        return "done"

    @tool(effect="read", label=Label.of(OWN, "tool:look"), fields=_FIELDS)
    async def look() -> Records:
        """Look at the records."""
        return records

    @tool(effect="read", label=Label.of(OWN, "record:more"), fields={"key": Label.of(OWN, "record:more")})
    async def more() -> Records:
        """Look for more."""
        note("more", "")
        return [{"key": "more"}]

    @tool(control=("on",), label=Label())
    async def act(on: str) -> str:
        """Act on something."""
        return note("act", on)

    @tool(control=("on",), label=Label())
    async def tell(on: str) -> str:
        """Act on something that was looked up."""
        return note("tell", on)

    written = json.dumps({"calls": [{"name": "look", "tool": "look"}, *calls]})

    def reply(request: ModelRequest) -> Line:
        if request.schema == PLAN_SCHEMA:
            return written
        if request.schema is not None:
            return json.dumps({"value": said})
        turn = sum(message.type == "ai" for message in request.messages)
        return moves[turn] if moves and turn < len(moves) else "Done."

    steps: tuple[Any, ...] = (partial(MakePlan, by_code=True), ExecutePlan)
    steps = steps if moves is None else (MakePlan, Compose, Agent)
    tools: list[Tool] = [look, more, act, tell]
    with (
        App(policy=policy, model=ScriptedModel(reply), tools=tools, pipeline=Pipeline(*steps), name="app") as app,
        contextlib.suppress(RingwallError),
    ):
        app.ask_sync("do it", as_=ANA)
    return done


_FIELDS = {name: Label.of(OWN, source) for name, source in SOURCES.items() if name != "text"}
MOVES = st.lists(
    st.sampled_from([call("look"), call("more"), call("act", on="x"), call("tell", on="more")]), max_size=6
)


@settings(max_examples=150, deadline=None)
@given(WHENS, WHENS, RECORDS, st.integers(0, 2), st.none() | MOVES)
def test_a_call_is_made_only_if_its_condition_holds_and_the_policy_has_seen_all_that_decided_it(
    first: Any, second: Any, records: Records, said: int, moves: list[Line] | None
) -> None:
    calls = [
        {"name": "act", "tool": "act", "arguments": {"on": "x"}, "when": first},
        {"name": "more", "tool": "more", "when": second},
        {"name": "tell", "tool": "tell", "arguments": {"on": {"$from": "more", "field": "key"}}, "when": first},
    ]
    needed = {"act": [first], "more": [second], "tell": [first, second]}
    for name, _, seen in (done := play(calls, records, said, moves)):
        assert all(truth(when, records, said) for when in needed[name])
        assert seen >= {"user:ana"}.union(*(sources(when, records) for when in needed[name]))
    names = [name for name, _, _ in done]
    assert len(names) == len({*names})
    if moves is None:  # and code makes all of which that is so
        for name, whens in needed.items():
            with contextlib.suppress(NoValueError):
                found = [truth(when, records, said) for when in whens]
                assert (name in names) == all(found)


@settings(max_examples=80, deadline=None)
@given(WHENS, RECORDS, st.integers(0, 2))
def test_of_two_branches_just_one_is_taken(when: Any, records: Records, said: int) -> None:
    calls = [
        {"name": "then", "tool": "act", "arguments": {"on": "x"}, "when": when},
        {"name": "else", "tool": "tell", "arguments": {"on": "x"}, "when": {"not": when}},
    ]
    names = [name for name, _, _ in play(calls, records, said, None)]
    try:
        assert names == ["act" if truth(when, records, said) else "tell"]
    except NoValueError:
        assert names == []


@given(WHENS)
def test_a_condition_comes_back_from_json_as_it_was(when: Any) -> None:
    one = when_from_json(when)
    assert when_from_json(json.loads(json.dumps(when_to_json(one)))) == one


@pytest.mark.parametrize("wrong", [{"when": {}}, {"when": {"left": 1, "is": "="}}, {"unless": True}])
def test_what_is_not_understood_is_never_left_out(wrong: Any) -> None:
    assert play([{"name": "act", "tool": "act", "arguments": {"on": "x"}} | wrong], [], 0, None) == []
