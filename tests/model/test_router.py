"""A router answers with the first provider that can and may."""

from collections.abc import AsyncGenerator

import pytest
from langchain_core.messages import HumanMessage

from ringwall.errors import (
    BadReply,
    FlowDenied,
    InvalidInput,
    ProviderRefused,
    ProviderUnavailable,
    RingwallError,
)
from ringwall.model import (
    Ability,
    Delta,
    Location,
    ModelInfo,
    ModelProvider,
    ModelRequest,
    Router,
    ScriptedModel,
    ToolSpec,
    collect,
)
from ringwall.model.contract import ModelProviderContract
from tests.model.test_scripted import obliging

HELLO = ModelRequest((HumanMessage("Hello?"),))


class Failing(ModelProvider):
    """Says a few words, then fails."""

    def __init__(self, error: RingwallError, *words: str) -> None:
        self.error, self.words, self.closed = error, words, False

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("failing", 100, Location.REMOTE)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        for word in self.words:
            yield Delta(word)
        raise self.error

    async def close(self) -> None:
        self.closed = True


class TestRouter(ModelProviderContract):
    @pytest.fixture
    def model(self) -> ModelProvider:
        return Router(Failing(ProviderUnavailable("busy")), ScriptedModel(obliging, window=100))


@pytest.mark.parametrize("error", [ProviderUnavailable("busy"), BadReply("garbage"), FlowDenied("not for you")])
async def test_the_next_answers_when_one_fails_before_its_first_word(error: RingwallError) -> None:
    reply = await collect(Router(Failing(error), ScriptedModel(["Hi."])).stream(HELLO))
    assert reply.text == "Hi."


async def test_a_reply_that_has_begun_is_never_taken_over_by_another() -> None:
    stream = Router(Failing(BadReply("half"), "Hel"), ScriptedModel(["Hi."])).stream(HELLO)
    assert (await anext(stream)).text == "Hel"
    with pytest.raises(BadReply, match="half"):
        await anext(stream)


@pytest.mark.parametrize("error", [ProviderRefused("bad key"), InvalidInput("nonsense")])
async def test_an_error_that_another_provider_cannot_mend_goes_to_the_caller(error: RingwallError) -> None:
    with pytest.raises(type(error)):
        await collect(Router(Failing(error), ScriptedModel(["Hi."])).stream(HELLO))


async def test_a_provider_without_the_needed_ability_is_passed_over() -> None:
    silent = Failing(InvalidInput("must not be asked"))
    request = ModelRequest(HELLO.messages, tools=(ToolSpec("look", "", {"type": "object"}),))
    assert (await collect(Router(silent, ScriptedModel(["Hi."])).stream(request))).text == "Hi."
    with pytest.raises(ProviderRefused, match="lacks tools"):
        await collect(Router(silent).stream(request))


async def test_the_last_error_tells_what_each_provider_said() -> None:
    router = Router(Failing(ProviderUnavailable("busy")), Failing(FlowDenied("not for you")))
    with pytest.raises(FlowDenied) as caught:
        await collect(router.stream(HELLO))
    assert "busy" in caught.value.__notes__[0]
    assert "not for you" in caught.value.__notes__[0]


async def test_a_router_promises_what_the_least_of_its_providers_does_and_closes_them() -> None:
    remote = Failing(BadReply("x"))
    router = Router(ScriptedModel(["Hi."]), remote)
    assert (router.info.window, router.info.location) == (100, Location.REMOTE)
    assert Ability.TOOLS in router.info.abilities
    await router.close()
    assert remote.closed


def test_a_router_without_providers_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Router()
