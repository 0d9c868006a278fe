"""`CasbinPolicy`: casbin says what model and policy are; answers come from a compiled copy of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.ruleset import ANY, RuleSet
from ringwall.principal import Grants, Principal
from ringwall.schema import digest
from ringwall_casbin.lines import PolicyLine, compile_lines
from ringwall_casbin.model import BUNDLED, read_model
from ringwall_casbin.sources import Adapter, AdapterSource, DatabaseSource, FileSource, Source

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class CasbinPolicy(Policy):
    """RBAC with domains in casbin's language: a domain is a tenant, `*` every tenant.

        p, role:guest, *, app:dinner, ask, allow
        p, doc:*, *, tool:book_table, call, ask
        g, user:ana, role:staff, acme
        g, role:staff, collection:kitchen, acme

    A deny beats an ask, an ask beats an allow, nothing matched is a deny; a decision's `rule` is the whole
    line. Whoever holds the left side of a `g` line also holds the right one, within its own tenant; roles
    that the principal was vouched for count as held.

    Decisions are those of casbin's own `Enforcer`, at a thousandth of its price: the policy is compiled once,
    and swapped whole by `reload` and by each edit. What casbin would skip or read otherwise than it looks
    (unknown kinds of lines, missing fields, a `*` in the middle, chains beyond its depth) is refused.

    `adapter` is any adapter of casbin's; `model` a file, else the bundled one, of which only the matcher may
    differ, and only as far as it can be compiled. Reads the policy at once. Raises `BadPolicy` naming file
    and line, `StoreError` when the adapter fails.
    """

    def __init__(self, adapter: Adapter, *, model: str | Path | None = None) -> None:
        self._begin(AdapterSource(adapter), model)

    @classmethod
    def from_files(cls, policy: str | Path, *, model: str | Path | None = None) -> Self:
        """Read a policy from a file. Edits hold until the next `reload`: nothing writes to the file."""
        return cls._from(FileSource(Path(policy)), model)

    @classmethod
    def from_database(cls, url: str, *, model: str | Path | None = None) -> Self:
        """Keep the policy in the table `casbin_rule`, made if it is missing, of SQLAlchemy's `url`."""
        return cls._from(DatabaseSource(url), model)

    @classmethod
    def _from(cls, source: Source, model: str | Path | None) -> Self:
        self = cls.__new__(cls)
        self._begin(source, model)
        return self

    def _begin(self, source: Source, model: str | Path | None) -> None:
        self._source = source
        self._model = read_model(Path(model or BUNDLED))
        self._lock = threading.Lock()
        self._lines: Mapping[str, PolicyLine] = _by_text(source.load())
        self._changes = 0
        self._rules = self._compile(self._lines, changes=0)

    def _compile(self, lines: Mapping[str, PolicyLine], *, changes: int) -> RuleSet:
        content = digest("\n".join((self._model.text, *lines)))
        return compile_lines(lines.values(), self._model, version=f"{content[:16]}.{changes}")

    async def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, str] = _NOTHING
    ) -> Decision:
        return self._rules.decide(principal, action, resource)

    async def grants(self, principal: Principal) -> Grants:
        return self._rules.grants(principal)

    @property
    def version(self) -> str:
        """A digest of model and policy, and the number of changes since this process opened them."""
        return self._rules.version

    async def reload(self) -> None:
        """Read the policy again: what another process changed is seen by the next call.

        Raises `BadPolicy` or `StoreError` and keeps the present policy.
        """
        await asyncio.to_thread(self._reload)

    async def add_policy(self, sub: str, dom: str, obj: str, act: str, eft: str = Verdict.ALLOW) -> bool:
        """Add a `p` line, arguments in casbin's order; `False` if it is there already.

        Stored first, then seen by the next call. Raises `BadPolicy` or `StoreError` and changes nothing.
        """
        return await self._edit("p", (sub, dom, obj, act, eft), add=True)

    async def remove_policy(self, sub: str, dom: str, obj: str, act: str, eft: str = Verdict.ALLOW) -> bool:
        """Remove a `p` line; `False` if there is none. Otherwise like `add_policy`."""
        return await self._edit("p", (sub, dom, obj, act, eft), add=False)

    async def add_grouping_policy(self, sub: str, grant: str, dom: str = ANY) -> bool:
        """Add a `g` line: whoever holds `sub` holds `grant`. Otherwise like `add_policy`."""
        return await self._edit("g", (sub, grant, dom), add=True)

    async def remove_grouping_policy(self, sub: str, grant: str, dom: str = ANY) -> bool:
        """Remove a `g` line; `False` if there is none. Otherwise like `add_policy`."""
        return await self._edit("g", (sub, grant, dom), add=False)

    async def close(self) -> None:
        self._source.close()

    async def _edit(self, kind: str, fields: tuple[str, ...], *, add: bool) -> bool:
        # An adapter blocks, and compiling ten thousand lines takes its time: not on the event loop.
        return await asyncio.to_thread(self._store_edit, PolicyLine(kind, fields, "casbin policy, edit"), add=add)

    def _store_edit(self, line: PolicyLine, *, add: bool) -> bool:
        with self._lock:
            if add == (line.text in self._lines):
                return False
            others = {text: other for text, other in self._lines.items() if text != line.text}
            lines = {**others, line.text: line} if add else others
            rules = self._compile(lines, changes=self._changes + 1)
            (self._source.add if add else self._source.remove)(line)
            self._swap(lines, rules)
            return True

    def _reload(self) -> None:
        with self._lock:
            lines = _by_text(self._source.load())
            if list(lines) != list(self._lines):
                self._swap(lines, self._compile(lines, changes=self._changes + 1))

    def _swap(self, lines: Mapping[str, PolicyLine], rules: RuleSet) -> None:
        self._lines, self._rules = lines, rules
        self._changes += 1


def _by_text(lines: Iterable[PolicyLine]) -> dict[str, PolicyLine]:
    return {line.text: line for line in lines}


__all__ = ["CasbinPolicy"]
