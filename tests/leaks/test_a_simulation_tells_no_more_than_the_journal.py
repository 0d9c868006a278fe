"""Whatever policy an auditor makes up, trying it on a journal tells nothing of what the journal withholds from it."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL, App, InMemoryJournal, Label, Principal, Rules, ScriptedModel, call, tool
from ringwall.deployment import Journal
from ringwall.deployment.simulation import Simulation, simulate

RULES = """
allow role:guest ask app:app
allow public call tool:*
grant role:guest collection:red
grant role:guest collection:blue
member tool:* role:guest
allow role:auditor audit app:app
grant role:auditor collection:questions
"""
ANA, AUDITOR = Principal.user("ana", "guest"), Principal.user("uta", "auditor")
SECRETS = [("merger.md", "collection:red"), ("layoffs.md", "collection:blue"), ("merger.md", "collection:blue")]
PROBES = st.lists(
    st.one_of(
        st.builds(
            "{} {} {} {}".format,
            st.sampled_from(["allow", "ask", "deny"]),
            st.sampled_from(["doc:merger.md", "doc:*", "doc:l*", "role:guest", "public", "tool:note"]),
            st.sampled_from(["ask", "call", "*"]),
            st.sampled_from(["tool:*", "tool:note", "app:app"]),
        ),
        st.builds(
            "grant {} collection:{}".format,
            st.sampled_from(["role:guest", "public", "tool:*", "role:auditor"]),
            st.sampled_from(["red", "blue", "questions"]),
        ),
    ),
    max_size=6,
)


@tool(effect="write", label=Label())
def note(text: str) -> str:
    """Note something."""
    return f"noted {text}"


async def ran(document: str, readers: str) -> Journal:
    """The journal of a run that reads a secret document, notes something, and answers."""
    journal, model = InMemoryJournal(), ScriptedModel([call("note", text="it"), "So it is."])
    async with App(policy=Rules(RULES), model=model, tools=[note], journal=journal) as app:
        await app.ingest([(document, "what nobody may know")], ACL.of(readers))
        await app.ask("what may nobody know?", as_=ANA, run="r0")
    return journal


JOURNALS = [asyncio.run(ran(*secret)) for secret in SECRETS]


def told(journal: Journal, probe: list[str], as_: Principal = AUDITOR) -> Simulation:
    return asyncio.run(simulate(journal, Rules(probe), policy=Rules(RULES), as_=as_))


@settings(deadline=None)
@given(PROBES)
def test_journals_that_differ_in_what_is_withheld_cannot_be_told_apart(probe: list[str]) -> None:
    first, *others = (told(journal, probe) for journal in JOURNALS)
    assert first.withheld
    assert all(other == first for other in others)


def test_whoever_may_receive_it_is_told_the_difference() -> None:
    probe = ["allow role:guest ask app:app", "allow public call tool:*", "deny doc:merger.md call tool:*"]
    merger, layoffs, _ = (told(journal, probe, ANA) for journal in JOURNALS)
    assert merger != layoffs
