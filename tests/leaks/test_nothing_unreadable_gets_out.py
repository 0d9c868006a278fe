"""Whatever the documents, their readers, the asker and the policy: no unreadable text reaches anybody."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL, App, Principal, Rules, ScriptedModel
from ringwall.data.base import Chunk
from ringwall.errors import RingwallError
from ringwall.model import ModelRequest
from tests.scenes import RULES, library

GRANTS = st.sampled_from(["user:ana", "user:ben", "role:guest", "role:staff", "collection:hr", "public"])
ACLS = st.frozensets(GRANTS, min_size=1, max_size=3).map(ACL)
MORE = st.sampled_from(
    ["", "role staff includes guest", "grant role:guest collection:hr", "member user:ana role:staff"]
)
WHO = st.builds(Principal.user, st.sampled_from(["ana", "ben", "eve"]), st.sampled_from(["guest", "staff"]))


@settings(max_examples=500, deadline=None)
@given(st.lists(ACLS, max_size=6), WHO, MORE, st.booleans())
def test_no_unreadable_text_reaches_prompts_answers_events_or_errors(
    acls: list[ACL],
    who: Principal,
    more: str,
    fails: bool,  # noqa: FBT001 (hypothesis passes it)
) -> None:
    asyncio.run(ask_and_look_everywhere(acls, who, f"{RULES}\n{more}", fails=fails))


async def ask_and_look_everywhere(acls: list[ACL], who: Principal, rules: str, *, fails: bool) -> None:
    seen: list[str] = []

    def tell_all(request: ModelRequest) -> str:
        prompt = "\n".join(str(message.content) for message in request.messages)
        seen.append(prompt)
        if fails:
            raise ValueError(prompt)
        return prompt

    chunks = [Chunk(f"{n}", f"d{n}", f"wine secret{n}x", acl) for n, acl in enumerate(acls)]
    policy = Rules(rules)
    async with App(policy=policy, model=ScriptedModel(tell_all), documents=await library(*chunks)) as app:
        try:
            seen.append((await app.ask("wine", as_=who, run="r")).text)
        except RingwallError as error:
            seen.extend((str(error), repr(error)))
        for run in await app.journal.runs():
            seen.extend(event.body + event.label for event in await app.events(run.run, as_=who))
        grants = await policy.grants(who)
    hidden = [n for n, acl in enumerate(acls) if not acl.admits(grants)]
    assert not [n for n in hidden if any(f"secret{n}x" in text for text in seen)]
