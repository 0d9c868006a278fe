"""Wiring: what is made, for how long, and what is said when it cannot be."""

from __future__ import annotations

from functools import partial

import pytest

from ringwall import App, Pipeline, Rules, ScriptedModel, Turn, Wiring
from ringwall.errors import ConfigurationError, MissingDependency


class Clock:
    pass


class Diary:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock


class Write:
    def __init__(self, diary: Diary, *, lines: int = 1) -> None:
        self.diary, self.lines = diary, lines

    async def __call__(self, turn: Turn) -> Turn:
        return turn


class Untyped:
    def __init__(self, thing) -> None:  # type: ignore[no-untyped-def]
        self.thing = thing

    async def __call__(self, turn: Turn) -> Turn:
        return turn


def app(pipeline: Pipeline, **options: object) -> App:
    return App(policy=Rules([]), model=ScriptedModel(["hi"]), pipeline=pipeline, **options)  # type: ignore[arg-type]


def test_what_nobody_makes_is_reported_when_the_app_is_built_with_the_path_to_it() -> None:
    def wiring(w: Wiring) -> None:
        w.run(Diary, Diary)

    with pytest.raises(MissingDependency) as caught:
        app(Pipeline(Write), wiring=wiring)
    _, _, path = str(caught.value).partition("│")
    assert path.index("Write") < path.index("Diary") < path.index("Clock")
    assert "App(wiring=...)" in path


def test_a_circle_is_reported_when_the_app_is_built() -> None:
    class Hen:
        def __init__(self, egg: Egg) -> None: ...

    class Egg:
        def __init__(self, hen: Hen) -> None: ...

    wiring = Wiring()
    Hen.__init__.__annotations__["egg"] = Egg
    Egg.__init__.__annotations__["hen"] = Hen
    wiring.app(Hen, Hen)
    wiring.app(Egg, Egg)
    with pytest.raises(MissingDependency, match="Hen"):
        wiring.build()


def test_an_argument_without_a_type_is_reported() -> None:
    with pytest.raises(ConfigurationError, match="argument 'thing' of Untyped has no type"):
        app(Pipeline(Untyped))


def test_what_is_made_for_the_app_is_made_once_and_for_a_run_each_time() -> None:
    wiring = Wiring()
    wiring.app(Clock, Clock)
    wiring.run(Diary, Diary)
    wiring.run(Write, partial(Write, lines=7))
    container = wiring.build()
    with container.enter({}) as one, container.enter({}) as other:
        assert one.get(Write).diary is one.get(Diary)
        assert one.get(Diary) is not other.get(Diary)
        assert one.get(Diary).clock is other.get(Diary).clock
        assert one.get(Write).lines == 7


def test_an_app_thing_cannot_ask_for_what_belongs_to_one_run() -> None:
    wiring = Wiring()
    wiring.run(Clock, Clock)
    wiring.app(Diary, Diary)
    with pytest.raises(MissingDependency, match="Clock"):
        wiring.build()


def test_a_gate_stands_in_front_of_a_thing_in_every_run_and_the_bare_thing_cannot_be_had() -> None:
    class Fence(Clock):
        def __init__(self, inner: Clock) -> None:
            self.inner = inner

    Fence.__init__.__annotations__["inner"] = Clock
    wiring = Wiring()
    wiring.app(Clock, Clock())
    wiring.gate(Clock, Fence)
    container = wiring.build()
    with container.enter({}) as scope:
        assert isinstance(scope.get(Clock), Fence)
    with pytest.raises(MissingDependency, match="Clock"):
        container.get(Clock)
