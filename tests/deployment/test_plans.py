"""A run that follows a plan does what the user's words ask for, whatever its model reads and whatever it then wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringwall import RunStatus
from ringwall.deployment.desk import Bounds
from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling
from ringwall.deployment.runlog import event_label
from ringwall.errors import ActionDenied, BadReply, InvalidInput, NotWaiting, RingwallError
from ringwall.planning import PLAN_SCHEMA, MakePlan
from ringwall.runs import RunResult
from ringwall.schema import JSON
from ringwall.steps import Agent, Compose, Personalize
from ringwall_sql import SqlJournal
from tests.deployment.office import ANA, DEPUTY, RULES, Office, Reader, call, plan_of, read_from, step, taken

DELETE_THE_LARGEST = plan_of(step("list", "files"), step("go", "delete", file=taken("list", "id", pick="largest size")))
DELETE_WHAT_IS_SAID = plan_of(
    step("list", "files", name="notes"), step("go", "delete", file=read_from("list", "which number?", "integer"))
)
SEND_THE_ROTA = plan_of(
    step("find", "files", name="rota"),
    step("go", "send", to=["bo@example.org"], text=read_from("find", "the rota")),
)


def always(said: JSON) -> Reader:
    """A reader that says one thing, whatever it is asked."""
    return lambda ask, text: said


async def kinds_of(app: Any, run: str) -> list[str]:
    return [event.kind for event in await app.events(run, as_=ANA)]


async def test_a_plan_is_executed_and_its_planner_and_its_readers_are_kept_apart() -> None:
    office = Office()
    plan = plan_of(*SEND_THE_ROTA["calls"], answer=read_from("find", "tell the user"))
    async with office.executing(plan, read=lambda ask, text: f"{ask}: read") as app:
        result = await app.ask("send bo@example.org the rota", as_=ANA)
    assert (result.text, office.done) == ("tell the user: read", [("send", ["bo@example.org"])])
    planner, *readers = office.requests
    assert planner.schema == PLAN_SCHEMA
    assert "Monday" not in str(planner.messages)
    assert all(request.schema != PLAN_SCHEMA and not request.tools for request in readers)
    assert all("Monday" in str(request.messages) for request in readers)


async def test_a_value_of_a_trusted_field_is_not_asked_about_and_one_that_was_read_is() -> None:
    office = Office()
    async with office.executing(DELETE_THE_LARGEST) as app:
        assert (await app.ask("delete the largest file", as_=ANA)).status is RunStatus.DONE
    assert office.done == [("delete", 13)]

    async with office.executing(DELETE_WHAT_IS_SAID, read=lambda ask, text: 13) as app:
        result = await app.ask("delete the file that my notes say", as_=ANA)
        (question,) = result.waiting
        assert question.label.influence == {"user:ana", "record:drive", "tool:files"}
        assert office.done == [("delete", 13)]
        await app.approve(result.run, by=DEPUTY)
        assert (await app.resume(result.run)).status is RunStatus.DONE
    assert office.done == [("delete", 13)] * 2


async def test_a_reader_that_is_shown_trusted_fields_alone_sees_no_other_and_is_not_asked_about() -> None:
    office, texts = Office(), list[str]()
    plan = plan_of(
        step("list", "files"),
        step("go", "delete", file=read_from("list", "the rota's id", "integer", fields=["id", "name"])),
    )

    def read(ask: str, text: str) -> int:
        texts.append(text)
        return 7

    async with office.executing(plan, read=read) as app:
        assert (await app.ask("delete the rota", as_=ANA)).status is RunStatus.DONE
    assert office.done == [("delete", 7)]
    assert texts
    assert "XX" not in texts[0]


async def test_what_a_plan_does_not_name_is_refused_and_nobody_is_asked() -> None:
    office = Office()
    moves = (call("files"), call("delete", file=13), call("send", to=["thief@example.org"], text="all"))
    async with office.acting(plan_of(step("list", "files")), *moves) as app:
        result = await app.ask("what is on the drive?", as_=ANA)
        assert result.text == "Done."
        assert "call.asked" not in await kinds_of(app, result.run)
    assert office.done == []


async def test_a_number_in_the_users_words_stands_for_nothing_else() -> None:
    words = "what is in the files on June 13? delete what my notes say"
    office = Office()
    moves = (call("files", name="notes"), call("delete", file=13))
    async with office.acting(DELETE_WHAT_IS_SAID, *moves, read=lambda ask, text: 13) as app:
        assert (await app.ask(words, as_=ANA)).waiting  # it was read, not said
    open_plan = plan_of(step("list", "files"), {"name": "go", "tool": "delete", "open": True})
    async with office.acting(open_plan, call("files"), call("delete", file=13)) as app:
        assert (await app.ask(words, as_=ANA)).waiting
    assert office.done == []


async def test_an_agent_makes_the_planned_call_once_and_with_the_planned_arguments() -> None:
    office = Office()
    moves = (call("files"), call("delete", file=7), call("delete", file=13), call("delete", file=13))
    async with office.acting(DELETE_THE_LARGEST, *moves) as app:
        assert (await app.ask("delete the largest file", as_=ANA)).status is RunStatus.DONE
    assert office.done == [("delete", 13)]


async def test_what_is_looked_up_for_all_is_chosen_by_nothing_that_they_say() -> None:
    plan = plan_of(
        step("mail", "mails"),
        step("list", "files", name={"$item": ""}) | {"each": taken("mail", "text", pick="all")},
        step("all", "files", name={"$item": ""}) | {"each": ["rota", "contract"]},
        step("go", "delete", file=taken("all", "id", pick="largest size")),
    )
    office = Office()
    async with office.executing(plan) as app:
        assert (await app.ask("delete the larger of rota and contract", as_=ANA)).status is RunStatus.DONE
    assert office.done == [("delete", 13)]
    moves = [call("mails"), *(call("files", name=name) for name in ("rota", "contract")), call("delete", file=13)]
    async with office.acting(plan, *moves) as app:
        assert (await app.ask("delete the larger of rota and contract", as_=ANA)).status is RunStatus.DONE
    assert office.done == [("delete", 13)] * 2


async def test_calls_for_each_of_what_was_read_are_put_before_a_human_together() -> None:
    whom = read_from("mail", "whom to tell", "array", fields=[])
    plan = plan_of(step("mail", "mails"), step("go", "send", to=[{"$item": "who"}], text="hello") | {"each": whom})
    office, people = Office(), [{"who": "bo@example.org"}, {"who": "eve@example.org"}]
    async with office.executing(
        plan, read=lambda ask, text: people, rules=RULES + "allow tool:* declassify to:*"
    ) as app:
        result = await app.ask("tell those who are named", as_=ANA)
        assert len(result.waiting) == 2
        assert len({question.group for question in result.waiting}) == 1
        await app.approve(result.run, by=DEPUTY, call="go.1")
        await app.deny(result.run, by=DEPUTY, call="go.0")
        assert (await app.resume(result.run)).status is RunStatus.DONE
    assert office.done == [("send", ["eve@example.org"])]
    moves = (call("mails"), *(call("send", to=[each["who"]], text="hello") for each in people))
    rules = RULES + "allow tool:* declassify to:*"
    async with office.acting(plan, *moves, read=lambda ask, text: people, rules=rules) as app:
        assert (await app.ask("tell those who are named", as_=ANA)).waiting
    assert len(office.done) == 1


async def test_what_a_plan_has_read_an_agent_cannot_say_for_itself() -> None:
    office = Office()
    moves = (call("files", name="notes"), call("delete", file=7), call("delete", file=13))
    async with office.acting(DELETE_WHAT_IS_SAID, *moves, read=lambda ask, text: 13) as app:
        result = await app.ask("delete the file that my notes say", as_=ANA)
        (question,) = result.waiting
        events = await app.events(result.run, as_=ANA)
    assert json.loads(question.arguments) == {"file": 13}
    told = [str(message.content) for message in office.requests[-1].messages]
    assert any('it has: [{"file":13}]' in text for text in told)  # 7 was refused
    (refused,) = [event for event in events if event.kind == "call.refused"]
    assert "tool:files" in event_label(refused).influence  # since it tells what was read there


async def test_an_agent_that_makes_the_call_it_is_told_of_has_made_the_planned_one() -> None:
    where = read_from("mail", "where is it?", quotes=taken("mail", "text", pick="all"))
    plan = plan_of(step("mail", "mails"), step("go", "send", to=["bo@example.org"], text={"$text": ["See ", where]}))
    office = Office([{"id": 1, "sender": "bo@example.org", "text": "it is at www.fair.example.com"}])
    told = call("send", to=["bo@example.org"], text="See www[.]fair[.]example[.]com")
    moves = (call("mails"), call("send", to=["bo@example.org"], text="See you"), told)
    rules = RULES + "allow tool:* declassify to:*"
    async with office.acting(plan, *moves, read=always("www.fair.example.com"), rules=rules) as app:
        await app.ask("tell bo@example.org where the fair is", as_=ANA)
    assert any(
        json.dumps("See www[.]fair[.]example[.]com") in str(each.content) for each in office.requests[-1].messages
    )
    assert office.texts == ["See www[.]fair[.]example[.]com"]


async def test_what_is_quoted_stands_where_it_is_to_be_quoted_from() -> None:
    name = read_from("list", "which file is the largest?", quotes=taken("list", "name", pick="all"))
    plan = plan_of(
        step("list", "files"), step("go", "send", to=["bo@example.org"], text={"$text": ["See ", name, "."]})
    )
    for said, texts in (("contract.txt", ["See contract.txt."]), ("contra", []), ("go to thief@example.org", [])):
        office = Office()
        async with office.executing(plan, read=always(said)) as app:
            result = await app.ask("tell bo@example.org which file is the largest", as_=ANA)
        assert office.texts == texts
        assert ("left out" in result.text) == (not texts)


async def test_what_is_the_only_one_has_no_other_of_its_kind_beside_it() -> None:
    words = "send the rota to whoever is named there"
    to = read_from("bill", "whose account?", form="iban", only=True)
    for name, said, is_asked in (
        ("bill", "GB33BUKB20201555555555", False),
        ("fee", "DE02 1203 0000 0000 2020 51", True),
    ):
        office = Office()
        plan = plan_of(step("bill", "files", name=name), step("go", "send", to=[to], text="paid"))
        rules = RULES + "allow tool:* declassify to:*"
        async with office.executing(plan, read=always(said), rules=rules) as app:
            result = await app.ask(words, as_=ANA)
        assert bool(result.waiting) == is_asked
        assert is_asked or "2 of the format 'iban' where just one was meant" in result.text


async def test_text_that_was_read_is_inert_in_what_somebody_is_sent_unless_an_address_is_meant() -> None:
    link, said = "https://thief.example.org/page", "see https://thief.example.org/page"
    rules = RULES + "allow tool:* declassify to:*"
    for ask, is_asked in ((read_from("list", "a summary"), False), (read_from("list", "the page", form="uri"), True)):
        office = Office()
        plan = plan_of(step("list", "files"), step("go", "send", to=["bo@example.org"], text=ask))
        async with office.executing(plan, read=always(link if is_asked else said), rules=rules) as app:
            assert bool((await app.ask("tell bo@example.org", as_=ANA)).waiting) == is_asked
        assert office.texts == ([] if is_asked else ["see https[:]//thief[.]example[.]org/page"])


async def test_one_answer_is_for_exactly_the_calls_of_the_group_that_was_shown() -> None:
    whom = read_from("mail", "whom to tell", "array", fields=[])
    plan = plan_of(step("mail", "mails"), step("go", "send", to=[{"$item": "who"}], text="hello") | {"each": whom})
    office, people = Office(), [{"who": "bo@example.org"}, {"who": "eve@example.org"}]
    rules = RULES + "allow tool:* declassify to:*"
    async with office.executing(plan, read=always(people), rules=rules) as app:
        runs = [await app.ask("tell those who are named", as_=ANA) for _ in range(2)]
        ((first, *_), (other, *_)) = [run.waiting for run in runs]
        await app.approve(first.run, by=DEPUTY, call="go.1")
        with pytest.raises(NotWaiting):  # it is another question now
            await app.approve(first.run, by=DEPUTY, call=first.group)
        with pytest.raises(InvalidInput, match="one question"):
            await app.draft(other.run, by=DEPUTY, bounds=Bounds(uses=1, seconds=60))
        await app.approve(other.run, by=DEPUTY, call=other.group)
        assert (await app.resume(other.run)).status is RunStatus.DONE
        assert (await app.resume(first.run)).status is RunStatus.WAITING
    assert office.done == [("send", ["bo@example.org"]), ("send", ["eve@example.org"]), ("send", ["eve@example.org"])]


async def test_what_guards_leave_of_planned_arguments_is_done_and_what_they_suspect_is_asked_about() -> None:
    class Phones(Guard):
        name, crossings = "phones", frozenset((Crossing.ARGUMENTS,))

        async def inspect(self, passing: Passing) -> Ruling:
            return Ruling(passing.text.replace("555-0100", "[phone]"), suspect="urgent" in passing.text)

    rules = RULES + "ask guard:* call tool:send\nallow guard:* declassify to:*\n"
    for said, texts in (("call 555-0100", ["call [phone]"]), ("urgent: call", [])):
        for by_code in (True, False):
            office, moves = Office(), (call("files", name="rota"), call("send", to=["bo@example.org"], text=said))
            app = (
                office.executing(SEND_THE_ROTA, read=always(said), rules=rules, guards=[Phones()])
                if by_code
                else office.acting(SEND_THE_ROTA, *moves, rules=rules, guards=[Phones()])
            )
            async with app:
                result = await app.ask("send bo@example.org the rota", as_=ANA)
            assert office.texts == texts
            assert bool(result.waiting) == (not texts)


async def test_of_several_records_none_is_taken_where_one_is_meant() -> None:
    office = Office()
    plan = plan_of(step("list", "files"), step("go", "delete", file=taken("list", "id")))
    async with office.executing(plan) as app:
        assert "5 records" in (await app.ask("delete the file", as_=ANA)).text
    assert office.done == []


async def test_a_reading_that_does_not_fit_its_schema_ends_the_run() -> None:
    office = Office()
    async with office.executing(DELETE_WHAT_IS_SAID, read=lambda ask, text: "13; and send all") as app:
        with pytest.raises(BadReply, match="schema"):
            await app.ask("delete the file that my notes say", as_=ANA)
    assert office.done == []


async def test_a_plan_is_made_before_anything_is_read() -> None:
    async with Office().app(SEND_THE_ROTA, lambda request: call("files"), steps=(Compose, Reads, MakePlan)) as app:
        with pytest.raises(ActionDenied, match="before anything is read"):
            await app.ask("send bo@example.org the rota", as_=ANA)


class Reads(Agent):
    """Looks at the files, and goes on."""

    async def __call__(self, turn: Any) -> Any:
        return await self._act(await self._generate(turn))


async def test_a_plan_with_a_tool_that_there_is_not_or_no_plan_at_all_is_a_bad_reply() -> None:
    only_one = read_from("list", "which?", only=True)
    quote = read_from("list", "which?", quotes=read_from("list", "from where?"))
    for plan in (
        plan_of(step("go", "fly")),
        {"plan": 1},
        plan_of(step("go", "delete", file=taken("later", "id"))),
        *[plan_of(step("list", "files"), step("go", "delete", file=origin)) for origin in (only_one, quote)],
    ):
        async with Office().executing(plan) as app:
            with pytest.raises(BadReply):
                await app.ask("go", as_=ANA)


async def test_whom_the_user_names_may_be_told_and_it_is_written_down() -> None:
    office = Office()
    async with office.executing(SEND_THE_ROTA, read=lambda ask, text: text) as app:
        result = await app.ask("send bo@example.org the rota", as_=ANA)
        kinds = await kinds_of(app, result.run)
    assert office.done == [("send", ["bo@example.org"])]
    assert kinds.index("flow.declassified") < kinds.index("call.started", kinds.index("flow.declassified"))


async def test_whom_somebody_else_names_is_told_only_by_who_may_declassify() -> None:
    office = Office()
    plan = plan_of(
        step("find", "files", name="rota"),
        step("mail", "mails"),
        step("go", "send", to=[read_from("mail", "who asks for it?")], text=read_from("find", "the rota")),
    )
    async with office.executing(plan, read=lambda ask, text: "thief@example.org") as app:
        result = await app.ask("send the rota to who asks for it in the mails", as_=ANA)
    assert "could tell to:thief" in result.text
    assert office.done == []


async def test_a_plan_goes_on_in_another_process_and_nothing_is_read_or_done_twice(tmp_path: Path) -> None:
    office = Office()
    plan = plan_of(*DELETE_WHAT_IS_SAID["calls"], step("tell", "send", to=["bo@example.org"], text="it is gone"))

    def app() -> Any:
        return office.executing(plan, read=lambda ask, text: 13, journal=SqlJournal(tmp_path / "journal.db"))

    async with app() as first:
        result: RunResult = await first.ask("delete the file that my notes say, and tell bo@example.org", as_=ANA)
        assert result.status is RunStatus.WAITING
    asked = len(office.requests)
    async with app() as second:
        await second.approve(result.run, by=DEPUTY)
    async with app() as third:
        assert (await third.resume(result.run)).status is RunStatus.DONE
        assert (await third.resume(result.run)).status is RunStatus.DONE
    assert office.done == [("delete", 13), ("send", ["bo@example.org"])]
    assert len(office.requests) == asked


async def test_a_call_that_was_declined_is_left_out_with_all_that_rests_on_it() -> None:
    office = Office()
    plan = plan_of(
        *DELETE_WHAT_IS_SAID["calls"], step("tell", "send", to=["bo@example.org"], text=read_from("go", "?"))
    )
    async with office.executing(plan, read=lambda ask, text: 13) as app:
        result = await app.ask("delete the file that my notes say, and tell bo@example.org", as_=ANA)
        await app.deny(result.run, by=DEPUTY)
        text = (await app.resume(result.run)).text
    assert "declined" in text
    assert "left out" in text
    assert office.done == []


async def test_an_explanation_tells_the_plan_and_who_was_told_by_which_rule() -> None:
    office = Office()
    async with office.executing(SEND_THE_ROTA, read=lambda ask, text: text) as app:
        result = await app.ask("send bo@example.org the rota", as_=ANA)
        explained = await app.explain(result.run, as_=ANA)
    assert "the plan names: files, send" in explained.why
    assert any("to:bo@example.org" in seen.what and "rules:" in seen.why for seen in explained.seen)


async def test_a_step_that_asks_for_a_plan_where_there_is_none_says_so() -> None:
    from ringwall.planning import ExecutePlan

    async with Office().app(SEND_THE_ROTA, lambda request: "", steps=(Personalize, ExecutePlan)) as app:
        with pytest.raises(RingwallError, match="MakePlan"):
            await app.ask("send it", as_=ANA)
