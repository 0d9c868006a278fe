"""A reply is given again to whoever asks the very same and may read the very same, and to nobody else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from ringwall import ACL, Label, ScriptedModel
from ringwall.model import ModelProvider, ModelRequest, Sampling, ToolSpec, Usage, collect
from ringwall.model.cache import CachedModel, InMemoryReplies
from ringwall.model.contract import ModelProviderContract
from tests.model.test_scripted import obliging

ASKED = ModelRequest((HumanMessage("Hello?"),), label=Label.of(ACL.of("user:ana")), asker="user:ana")


class TestCachedModel(ModelProviderContract):
    @pytest.fixture
    def model(self) -> ModelProvider:
        return CachedModel(ScriptedModel(obliging, window=100))


class Counting:
    """A model that numbers its answers."""

    def __init__(self, **options: object) -> None:
        self.count = 0
        self.model = CachedModel(ScriptedModel(self.answer), **options)  # type: ignore[arg-type]

    def answer(self, request: ModelRequest) -> str:
        self.count += 1
        return f"answer {self.count}"

    async def ask(self, request: ModelRequest) -> str:
        return (await collect(self.model.stream(request))).text


async def test_the_very_same_is_answered_once_and_costs_nothing_again() -> None:
    counting = Counting()
    assert await counting.ask(ASKED) == "answer 1"
    again = await collect(counting.model.stream(ASKED))
    assert (again.text, again.usage, again.finish) == ("answer 1", Usage(), "stop")


OTHERS = {
    "another asker": replace(ASKED, asker="user:ben"),
    "other readers": replace(ASKED, label=Label.of(ACL.of("user:ben"))),
    "another influence": replace(ASKED, label=Label.of(ACL.of("user:ana"), "web:example.org")),
    "other words": replace(ASKED, messages=(HumanMessage("Hello!"),)),
    "another role": replace(ASKED, messages=(AIMessage("Hello?"),)),
    "a tool": replace(ASKED, tools=(ToolSpec("look", "", {"type": "object"}),)),
    "a schema": replace(ASKED, schema={"type": "object"}),
    "another bound": replace(ASKED, sampling=Sampling(max_tokens=7)),
    "a bias": replace(ASKED, sampling=Sampling(logit_bias=((1, 2.0),))),
    "an adapter": replace(ASKED, adapter="legal"),
    "a control vector": replace(ASKED, control="calm"),
    "a grammar": replace(ASKED, grammar='root ::= "x"'),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_whatever_differs_is_asked_anew(other: ModelRequest) -> None:
    counting = Counting()
    await counting.ask(ASKED)
    assert await counting.ask(other) == "answer 2"


async def test_what_everybody_may_read_is_kept_for_everybody() -> None:
    counting = Counting()
    public = replace(ASKED, label=Label())
    await counting.ask(public)
    assert await counting.ask(replace(public, asker="user:ben")) == "answer 1"


@pytest.mark.parametrize(("options", "answer"), [({}, "answer 2"), ({"sampled": True}, "answer 1")])
async def test_a_sampled_reply_is_kept_only_if_that_was_asked_for(options: dict[str, bool], answer: str) -> None:
    counting = Counting(**options)
    sampled = replace(ASKED, sampling=Sampling(temperature=0.7))
    await counting.ask(sampled)
    assert await counting.ask(sampled) == answer
    seeded = replace(ASKED, sampling=Sampling(temperature=0.7, seed=1))
    assert await counting.ask(seeded) == await counting.ask(seeded)


async def test_half_a_reply_is_not_kept() -> None:
    counting = Counting()
    stream = counting.model.stream(ASKED)
    await anext(stream)
    await stream.aclose()
    assert await counting.ask(ASKED) == "answer 2"


async def test_replies_grow_old_and_the_least_used_are_forgotten() -> None:
    time = [0.0]
    counting = Counting(replies=InMemoryReplies(2, seconds=10, now=lambda: time[0]))
    first, second, third = (replace(ASKED, messages=(HumanMessage(text),)) for text in "abc")
    for request in (first, second, first, third):
        await counting.ask(request)
    assert counting.count == 3
    assert await counting.ask(first) == "answer 1"
    assert await counting.ask(second) == "answer 4"
    time[0] = 10.0
    assert await counting.ask(second) == "answer 5"


_labels = st.sets(st.sampled_from(["user:ana", "user:ben", "role:staff", "public"]), min_size=1).map(
    lambda readers: Label.of(ACL(readers))
)


@given(st.lists(st.tuples(_labels, st.sampled_from(["user:ana", "user:ben"])), min_size=2, max_size=6))
async def test_nobody_is_answered_from_what_another_asked_in_confidence(asked: list[tuple[Label, str]]) -> None:
    counting = Counting()
    first: dict[str, tuple[Label, str]] = {}
    for label, asker in asked:
        answer = await counting.ask(replace(ASKED, label=label, asker=asker))
        whose = first.setdefault(answer, (label, asker))
        assert whose == (label, asker) or (not label.secrecy and whose[0] == label)
