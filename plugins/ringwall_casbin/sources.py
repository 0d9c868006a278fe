"""Where policy lines are kept: a file, or any adapter of casbin's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import casbin

from ringwall.errors import StoreError
from ringwall_casbin.lines import PolicyLine, read_lines


class Adapter(Protocol):
    """What we use of an adapter of casbin's (`casbin.persist.Adapter`)."""

    def load_policy(self, model: Any) -> object: ...

    def add_policy(self, sec: str, ptype: str, rule: list[str]) -> object: ...

    def remove_policy(self, sec: str, ptype: str, rule: list[str]) -> object: ...


class Source(Protocol):
    """Loads and stores policy lines. Raises `BadPolicy` for an unreadable file, else `StoreError`."""

    def load(self) -> Iterable[PolicyLine]: ...

    def add(self, line: PolicyLine) -> None: ...

    def remove(self, line: PolicyLine) -> None: ...

    def close(self) -> None: ...


class FileSource:
    """A policy file, which is only read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Iterable[PolicyLine]:
        return read_lines(self._path)

    def add(self, line: PolicyLine) -> None: ...

    def remove(self, line: PolicyLine) -> None: ...

    def close(self) -> None: ...


class AdapterSource:
    """Whatever an adapter of casbin's keeps. The adapter stays its owner's to close."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._where = f"casbin policy in {type(adapter).__module__}.{type(adapter).__qualname__}"

    def load(self) -> Iterable[PolicyLine]:
        model = casbin.Model()
        model.model = _AnyKind(lambda: _AnyKind(casbin.model.Assertion))
        with self._failing("read"):
            self._adapter.load_policy(model)
        for section in model.model.values():
            for kind, assertion in section.items():
                yield from (PolicyLine(kind, tuple(fields), self._where) for fields in assertion.policy)

    def add(self, line: PolicyLine) -> None:
        with self._failing("stored"):
            self._adapter.add_policy(line.kind, line.kind, list(line.fields))

    def remove(self, line: PolicyLine) -> None:
        with self._failing("removed"):
            self._adapter.remove_policy(line.kind, line.kind, list(line.fields))

    def close(self) -> None: ...

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # an adapter is anybody's code, over any database's driver
            raise StoreError(f"{self._where} could not be {what}: {error}", hint="nothing was changed") from error


class DatabaseSource(AdapterSource):
    """A table in a database of our own opening."""

    def __init__(self, url: str) -> None:
        import sqlalchemy
        import sqlalchemy_adapter

        engine = sqlalchemy.create_engine(url)
        self._dispose: Callable[[], None] = engine.dispose
        super().__init__(sqlalchemy_adapter.Adapter(engine))

    def close(self) -> None:
        self._dispose()


class _AnyKind(defaultdict[str, Any]):
    """Takes lines of any kind, so that we can refuse those that a casbin model would drop in silence."""

    def keys(self) -> Any:
        return self

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]
