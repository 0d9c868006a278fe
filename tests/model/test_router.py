"""A router answers with the first provider that can and may."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from ringwall import ACL, App, Principal, Rules
from ringwall.errors import (
    BadReply,
    ConfigurationError,
    ContextOverflow,
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
    Price,
    Router,
    Sampling,
    ScriptedModel,
    ToolSpec,
    collect,
)
from ringwall.model.contract import ModelProviderContract
from ringwall.model.health import Breaker, Health
from ringwall.model.rollout import Shadowed, Share
from ringwall.model.router import cheapest, fastest
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


class Telling(ModelProvider):
    """Says its name after a while, and remembers who asked."""

    def __init__(
        self, name: str, *, after: float = 0.0, price: Price | None = None, location: Location = Location.REMOTE
    ) -> None:
        self._info = ModelInfo(name, 1000, location, price=price or Price())
        self.after, self.asked, self.left = after, list[str](), 0

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        self.asked.append(request.asker)
        try:
            await asyncio.sleep(self.after)
        except asyncio.CancelledError:
            self.left += 1
            raise
        yield Delta(self._info.name, finish="stop")


async def said(router: Router, asker: str = "") -> str:
    request = ModelRequest(HELLO.messages, asker=asker, sampling=Sampling(max_tokens=1000))
    return (await collect(router.stream(request))).text


async def test_the_cheapest_is_asked_first_and_none_that_may_cost_too_much() -> None:
    dear, cheap = Telling("dear", price=Price(10.0, 30.0)), Telling("cheap", price=Price(0.1, 0.4))
    assert await said(Router(dear, cheap, strategy=cheapest)) == "cheap"
    assert await said(Router(dear, cheap, most=0.001)) == "cheap"
    with pytest.raises(RingwallError, match="may cost more"):
        await said(Router(dear, most=0.001))


async def test_the_fastest_is_asked_once_all_were() -> None:
    slow, quick = Telling("slow", after=0.05), Telling("quick")
    router = Router(slow, quick, strategy=fastest)
    assert {await said(router), await said(router)} == {"slow", "quick"}
    assert [await said(router) for _ in range(3)] == ["quick"] * 3


async def test_a_prompt_too_long_for_one_goes_to_the_next() -> None:
    assert await said(Router(Failing(ContextOverflow(200, 100)), Telling("large"))) == "large"


async def test_who_failed_too_often_is_left_alone() -> None:
    down = Failing(ProviderUnavailable("busy"))
    router = Router(down, Telling("up"), breaker=Breaker(failures=2, seconds=60))
    notes: list[str] = []
    seen = router.within(lambda provider: provider, note=lambda s: notes.append(f"{s.provider} {s.why}"), asker="ana")
    assert [await said(seen) for _ in range(4)] == ["up"] * 4
    down.error = FlowDenied("asked again")
    assert await said(seen) == "up"
    assert notes == ["failing ProviderUnavailable"] * 5


def test_a_breaker_lets_one_try_when_its_pause_is_over() -> None:
    time = [0.0]
    health = Health(Breaker(failures=2, seconds=10), lambda: time[0])
    for _ in range(2):
        assert health.may_be_asked()
        health.failed()
    assert not health.may_be_asked()
    time[0] = 10.0
    assert health.may_be_asked()
    assert not health.may_be_asked(), "the others wait for what the first finds"
    health.answered(0.1)
    assert health.may_be_asked()


async def test_a_hedge_asks_the_next_beside_one_that_is_slow_and_leaves_the_loser() -> None:
    slow, quick = Telling("slow", after=30), Telling("quick")
    assert await asyncio.wait_for(said(Router(slow, quick, hedge_after=0.01)), 5) == "quick"
    assert slow.left == 1
    patient = Telling("patient", after=0.01)
    assert await said(Router(patient, quick, hedge_after=5)) == "patient"
    assert len(quick.asked) == 1


async def test_a_hedge_that_fails_does_not_end_the_race() -> None:
    router = Router(Telling("slow", after=0.1), Failing(ProviderUnavailable("busy")), hedge_after=0.01)
    assert await said(router) == "slow"


@given(st.text(max_size=20), st.floats(0, 100), st.floats(0, 100))
def test_an_asker_stays_on_its_side_and_a_larger_share_takes_in_all_of_a_smaller(
    asker: str, one: float, other: float
) -> None:
    small, large = (Share(Telling("new"), percent) for percent in sorted((one, other)))
    assert small.takes(asker) == small.takes(asker)
    assert large.takes(asker) or not small.takes(asker)
    assert not Share(Telling("new"), 0).takes(asker)
    assert not Share(Telling("new"), 100, cohort=lambda _: False).takes(asker)


async def test_a_canary_answers_its_share_and_nobody_else_and_is_replaced_when_it_fails() -> None:
    router = Router(Telling("old"), canary=Share(Telling("new"), 30))
    answers = [await said(router, f"user:{n}") for n in range(200)]
    assert 30 <= answers.count("new") <= 90
    assert [await said(router, f"user:{n}") for n in range(200)] == answers
    assert await said(Router(Telling("old"), canary=Share(Failing(BadReply("x")), 100))) == "old"


@pytest.mark.parametrize(
    ("provider", "reply", "error"), [(Telling("new"), "new", ""), (Failing(BadReply("x")), "", "BadReply")]
)
async def test_a_shadow_is_asked_beside_and_heard_of_apart(provider: ModelProvider, reply: str, error: str) -> None:
    heard: asyncio.Queue[Shadowed] = asyncio.Queue()
    router = Router(Telling("old"), shadow=Share(provider, 100), on_shadow=heard.put_nowait)
    assert await said(router) == "old"
    shadowed = await asyncio.wait_for(heard.get(), 5)
    assert (shadowed.reply.text if shadowed.reply else "", shadowed.error) == (reply, error)


@pytest.mark.parametrize("percent", [-1, 101, float("nan")])
def test_a_share_is_a_percentage(percent: float) -> None:
    with pytest.raises(ConfigurationError):
        Share(Telling("new"), percent)


async def test_in_an_app_no_way_of_routing_leads_to_a_provider_that_may_not_receive_the_request() -> None:
    open_, barred = Telling("local", after=0.05, location=Location.IN_PROCESS), Telling("barred")
    shadow, canary = Telling("barred"), Telling("barred")
    router = Router(
        barred,
        open_,
        strategy=cheapest,
        hedge_after=0.01,
        canary=Share(canary, 100),
        shadow=Share(shadow, 100),
    )
    rules = Rules("allow user:* ask app:app\ngrant model:barred collection:questions")
    ana = Principal.user("ana")
    async with App(policy=rules, model=router) as app:
        await app.ingest([("wages.md", "The cook earns 3,100.")], ACL.of("user:ana"))
        result = await app.ask("What does the cook earn?", as_=ana)
        assert result.text == "local"
        assert open_.asked == ["user:ana"]
        assert barred.asked == canary.asked == shadow.asked == []
        kinds = [event.kind for event in await app.events(result.run, as_=ana)]
        assert kinds.count("model.skipped") == 2
        assert "flow.denied" in kinds
