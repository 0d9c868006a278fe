"""Whatever a fooled reader says, and whatever the texts are: no more gets through than the plan lets it say."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringwall import ACL, App, Label, Pipeline, Principal, Rules, ScriptedModel, tool
from ringwall.interface.formats import FORMATS, found, has_format, is_only
from ringwall.model import ModelRequest
from ringwall.planning import PLAN_SCHEMA, ExecutePlan, MakePlan

ANA = Principal.user("ana")
OWN = ACL(("user:ana", "role:own"))
RULES = """
allow user:ana ask app:app
allow * call tool:*
allow user:ana declassify to:*
allow record:* declassify to:*
allow tool:* declassify to:*
member tool:* role:own
grant tool:* collection:questions
"""
ACCOUNTS = ("DE02120300000000202051", "GB33BUKB20201555555555", "FR1420041010050500013M02606")
WORDS = st.text("ab ,", min_size=1, max_size=8)  # without dots: names of hosts would be made inert


def sent(records: list[dict[str, Any]], to: Any, text: Any, said: str) -> list[tuple[str, str]]:
    """What is sent to whom by a plan over these records, when the reader says `said` whatever it is asked."""
    mails: list[tuple[str, str]] = []

    @tool(effect="read", label=Label.of(OWN, "tool:look"), fields={"name": Label.of(OWN, "record:own")})
    async def look() -> list[dict[str, Any]]:
        """Look at the records."""
        return records

    @tool(recipients=("to",), control=(), label=Label())
    async def send(to: str, text: str) -> str:
        """Send a mail."""
        mails.append((to, text))
        return "sent"

    calls = [{"name": "look", "tool": "look"}, {"name": "go", "tool": "send", "arguments": {"to": to, "text": text}}]

    def reply(request: ModelRequest) -> str:
        return json.dumps({"calls": calls} if request.schema == PLAN_SCHEMA else {"value": said})

    steps = Pipeline(partial(MakePlan, by_code=True), ExecutePlan)
    with App(policy=Rules(RULES), model=ScriptedModel(reply), tools=[look, send], pipeline=steps, name="app") as app:
        app.ask_sync("do it", as_=ANA)
    return mails


@settings(max_examples=80, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=3), st.lists(WORDS, max_size=2), WORDS | st.sampled_from(["evil", "a", ""]))
@example(["a b"], ["evil"], "evil")
@example(["a b"], [], "a b")
def test_what_is_quoted_was_said_by_a_trusted_field_word_for_word(
    names: list[str], texts: list[str], said: str
) -> None:
    records = [{"name": name, "text": " ".join(texts)} for name in names]
    quote = {"$read": ["look"], "ask": "which?", "quotes": {"$from": "look", "field": "name", "pick": "all"}}
    mails = sent(records, "bo", {"$text": ["It is ", quote]}, said)
    assert mails in ([], [("bo", f"It is {said}")])
    assert not mails or any(said in name for name in names)
    assert mails or said not in names or not said.strip(" ,")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(ACCOUNTS), min_size=1, max_size=4), st.sampled_from(ACCOUNTS), st.booleans())
def test_an_account_is_paid_only_where_no_other_stands_beside_it(there: list[str], said: str, spaced: bool) -> None:  # noqa: FBT001
    shown = [" ".join(each[n : n + 4] for n in range(0, len(each), 4)) if spaced else each for each in there]
    asked = {"type": "string", "format": "iban"}
    to = {"$read": ["look"], "ask": "whom?", "schema": asked, "only": True}
    mails = sent([{"name": "n", "text": f"pay {each}, please"} for each in shown], to, "paid", said)
    assert mails == ([(said, "paid")] if set(there) == {said} else [])


@given(st.text("aA1.@:/ wht", max_size=30), st.sampled_from(sorted(FORMATS)))
def test_what_has_a_format_is_the_only_one_that_it_holds(text: str, name: str) -> None:
    if has_format(text, name):
        assert is_only(text, text, name)
        assert len(found(f"see {text} there", name)) == 1
