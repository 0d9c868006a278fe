"""The wiring: a small face for dishka.

Recipes and objects are two things: `Wiring` knows how each thing is made, a `Container` keeps what was made, for one
app or one run. Classes ask for what they need in their constructors and never see either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self, TypeVar, cast, get_type_hints

from dishka import BaseScope, Provider, make_container, new_scope
from dishka import Container as DishkaContainer
from dishka.exception_base import DishkaError
from dishka.exceptions import NoFactoryError
from typing_extensions import TypeForm

from ringwall.errors import ConfigurationError, MissingDependency

T = TypeVar("T")

Maker = Callable[..., Any]
"""A class, a function with type hints, or a `partial` of either with some arguments given."""


class _Scope(BaseScope):
    APP = new_scope("APP")
    RUN = new_scope("RUN")


class Wiring:
    """Says how each thing is made, and for how long it is kept.

    Two scopes: what is made for the app is kept until the app closes, what is made for a run ends with it.
    """

    def __init__(self) -> None:
        self._provider = Provider()

    def app(self, interface: TypeForm[T], value: T | Maker) -> None:
        """Provide `interface` for the whole app: an object, or a class to make it from."""
        if inspect.isclass(value) or isinstance(value, partial):
            self._provide(interface, cast(Maker, value), _Scope.APP)
        else:
            self.value(interface, value)

    def value(self, interface: TypeForm[T], value: object) -> None:
        """Provide for the whole app this very object, also if it could make others."""
        self._provider.provide(lambda: value, provides=interface, scope=_Scope.APP)

    def run(self, interface: TypeForm[T], maker: Maker) -> None:
        """Provide `interface` anew for each run."""
        self._provide(interface, maker, _Scope.RUN)

    def given(self, interface: TypeForm[T]) -> None:
        """Provide `interface` from what is handed over when a run begins."""
        self._provider.from_context(provides=interface, scope=_Scope.RUN)

    def together(self, interface: TypeForm[T], keys: Sequence[Any]) -> None:
        """Provide under `interface`, anew for each run, a tuple of what stands under each of `keys`."""

        def make(*injected: object) -> tuple[object, ...]:
            return injected

        _declare(make, "together", {f"_{number}": key for number, key in enumerate(keys)})
        self._provider.provide(make, provides=interface, scope=_Scope.RUN)

    def gate(self, interface: TypeForm[T], wrapper: Maker) -> None:
        """Put `wrapper` in front of `interface` in every run: steps can obtain nothing else."""
        self._provider.decorate(factory(wrapper), provides=interface, scope=_Scope.RUN)

    def build(self) -> Container:
        """Check the whole graph and return a container.

        Raises `MissingDependency` with the path from what is wanted to what nobody makes; also for cycles, and for
        what is made once but asks for what belongs to one run.
        """
        try:
            return Container(make_container(self._provider, scopes=_Scope, lock_factory=None))
        except DishkaError as error:
            raise MissingDependency(
                f"the app cannot be wired: {error}",
                hint="pass it to App(...), or provide it with App(wiring=...)",
            ) from None

    def _provide(self, interface: TypeForm[T], maker: Maker, scope: _Scope) -> None:
        self._provider.provide(factory(maker), provides=interface, scope=scope)


class Container:
    """Keeps what was made for the app, and opens a scope for each run."""

    def __init__(self, inner: DishkaContainer) -> None:
        self._inner = inner

    def get(self, interface: TypeForm[T]) -> T:
        """Return what this scope holds under `interface`. Raises `MissingDependency`."""
        try:
            return cast(T, self._inner.get(interface))
        except NoFactoryError as error:
            raise MissingDependency(f"nothing here may have it: {error}") from None

    def enter(self, given: dict[Any, object]) -> Container:
        """Open the scope of one run with the things given to it; what it made is closed when it is left."""
        return Container(self._inner(context=given).__enter__())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what was made here."""
        self._inner.close()


def factory(maker: Maker) -> Maker:
    """Return a callable whose parameters are what `maker` needs injected: those without a default, not yet given.

    Raises `ConfigurationError` for such a parameter without a type.
    """
    target, given = (maker.func, maker.keywords) if isinstance(maker, partial) else (maker, {})
    name = getattr(target, "__qualname__", repr(target))
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    needs: dict[str, Any] = {}
    for parameter in inspect.signature(target).parameters.values():
        if parameter.name in given or parameter.default is not parameter.empty:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name not in hints:
            raise ConfigurationError(
                f"argument {parameter.name!r} of {name} has no type, so nothing can be injected", hint="annotate it"
            )
        needs[parameter.name] = hints[parameter.name]

    if not given and len(needs) == len(inspect.signature(target).parameters):
        return target  # nothing to leave out: the wiring may call it as it is

    in_front = list(needs) == list(inspect.signature(target).parameters)[: len(needs)]

    def make(*injected: object) -> object:
        return target(*injected, **given)

    def make_by_name(*injected: object) -> object:
        return target(**dict(zip(needs, injected, strict=True)), **given)

    return _declare(make if in_front else make_by_name, name, needs)


def _declare(make: Maker, name: str, needs: Mapping[str, Any]) -> Maker:
    """Say what `make` is called in errors and what to inject into it, by position, which is quickest."""
    kind = inspect.Parameter.POSITIONAL_ONLY
    parameters = [inspect.Parameter(name, kind, annotation=hint) for name, hint in needs.items()]
    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by dishka
    make.__annotations__ = dict(needs)
    make.__name__ = make.__qualname__ = name
    return make
