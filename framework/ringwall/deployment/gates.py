"""The gates: wrappers around each ring's interface, and the only callers of the policy.

Two questions are asked (docs/explanation/gates.md): may this receiver receive a value with this label, and may
these sources cause this action. A gate also notes what it let through, so that the run's floor, the label of all it
has seen, cannot be forgotten by a step.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol, cast

from ringwall.data.base import Chunk, DocumentStore, Match, Query
from ringwall.data.receiving import in_tenant_of
from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.runlog import RunLog
from ringwall.errors import ActionDenied, FlowDenied, StoreError
from ringwall.label import Label, Source, join
from ringwall.model.base import Delta, Location, ModelInfo, ModelProvider, ModelRequest, Usage
from ringwall.personalization.base import Memory, MemoryStore, Profile, ProfileStore
from ringwall.principal import ACL, TENANT_MARK, Grants, Principal, scoped
from ringwall.schema import JSON

QUESTIONS: Final = "collection:questions"
"""The grant to receive what users ask, besides the asking user. Give it to the hosted models and tools that may."""


def question_label(principal: Principal) -> Label:
    """The label of a principal's own words: for itself and holders of `collection:questions`, shaped by itself."""
    readers = ACL((principal.own_grant, scoped(QUESTIONS, principal.tenant)))
    return Label(frozenset((readers,)), frozenset((principal.id,)))


class GatedStore(DocumentStore):
    """Searches on behalf of the run's principal: with what it asks for and holds at this moment, never more."""

    def __init__(self, inner: DocumentStore, log: RunLog) -> None:
        self._inner, self._log = inner, log

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        began = time.perf_counter()
        allowed = readable & await self._log.policy.grants(self._log.principal)
        matches = await self._inner.search(query, allowed, k)
        for match in matches:
            self._check(match.chunk, allowed)
        milliseconds = round((time.perf_counter() - began) * 1e3, 3)
        found: list[JSON] = [m.chunk.id for m in matches]
        scores: list[JSON] = [m.score for m in matches]
        body: dict[str, JSON] = {"k": k, "found": found, "scores": scores, "ms": milliseconds}
        self._log.note("data.searched", body, label=join([m.chunk.label for m in matches]))
        return matches

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        allowed = readable & await self._log.policy.grants(self._log.principal)
        chunks = await self._inner.get(ids, allowed)
        for chunk in chunks:
            self._check(chunk, allowed)
        found: list[JSON] = [chunk.id for chunk in chunks]
        self._log.note("data.read", {"found": found}, label=join([chunk.label for chunk in chunks]))
        return chunks

    def _check(self, chunk: Chunk, allowed: Grants) -> None:
        if chunk.readers.isdisjoint(allowed):
            raise StoreError(
                f"{type(self._inner).__name__} returned a passage that the reader may not read",
                hint="do not use this store until it passes `ringwall.data.contract`",
            )

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        await self._may_write()
        for chunk in chunks:
            self._may_be_read_by(chunk.readers)
        await self._inner.upsert(chunks)

    async def delete(self, documents: Sequence[str]) -> None:
        await self._may_write()
        await self._inner.delete(documents)

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        await self._may_write()
        self._may_be_read_by(readers)
        await self._inner.set_readers(documents, readers)

    def _may_be_read_by(self, readers: ACL) -> None:
        """Refuse readers who may not receive everything the run has seen: a document must not publish it."""
        if not all(readers <= acl for acl in self._log.floor.secrecy):
            raise FlowDenied("these readers may not receive what this run has read", hint="name fewer readers")

    async def _may_write(self) -> None:
        decision = await caused_by(self._log, self._log.causes, "write", "documents")
        if not decision:
            raise ActionDenied(f"this run may not write documents: {decision.reason}", rule=decision.rule)


class ModelGate(ModelProvider):
    """What stands in front of a provider: all that it says of itself is the provider's."""

    _inner: ModelProvider

    @property
    def info(self) -> ModelInfo:
        return self._inner.info

    @property
    def principal(self) -> Principal:
        return self._inner.principal


class GatedModel(ModelGate):
    """Sends a request on only if the provider may receive everything the run has seen."""

    def __init__(self, inner: ModelProvider, log: RunLog) -> None:
        self._inner, self._log = inner, log

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        info = self._inner.info
        if info.location is Location.REMOTE:
            await self._may_receive(request.label | self._log.floor)
        began, usage, finish = time.perf_counter(), Usage(), ""
        calls: list[JSON] = []
        asker = self._log.principal.own_grant
        if request.asker != asker:
            request = replace(request, asker=asker)
        deltas = self._inner.stream(request)
        try:
            async for delta in deltas:
                usage = delta.usage or usage
                finish = delta.finish or finish
                for call in delta.calls:
                    self._log.proposals[call.name, call.arguments] = request.label | self._log.floor
                    calls.append([call.name, call.arguments])
                yield delta
        finally:
            await deltas.aclose()
        self._log.note(
            "model.replied",
            {
                "provider": info.name,
                "prompt_tokens": usage.prompt,
                "cached_tokens": usage.cached,
                "completion_tokens": usage.completion,
                "cost": round(info.price.of(usage), 9),
                "finish": finish,
                "calls": calls,
                "ms": round((time.perf_counter() - began) * 1e3, 3),
            },
        )

    async def _may_receive(self, label: Label) -> None:
        receiver = self._inner.principal
        if not await may_flow(self._log, label, receiver):
            raise FlowDenied(
                f"{receiver.id} may not receive what this run has read",
                hint="route it to a local model, or give that provider the grants it lacks",
            )


class GatedProfiles(ProfileStore):
    """Hands out the profile of the run's principal, and of nobody else."""

    def __init__(self, inner: ProfileStore, log: RunLog) -> None:
        self._inner, self._log = inner, log

    async def get(self, principal: Principal) -> Profile:
        _own(self._log, principal)
        profile = await self._inner.get(principal)
        if profile:
            self._log.saw(profile.label)
        return profile

    async def put(self, principal: Principal, profile: Profile) -> None:
        _own(self._log, principal)
        floor = self._log.floor
        if not floor.influence <= {principal.id} or not all(principal.own_grant in acl for acl in floor.secrecy):
            raise FlowDenied("only the user's own words may change a profile", hint="change it outside of a run")
        await self._inner.put(principal, profile)

    async def forget(self, principal: Principal) -> None:
        _own(self._log, principal)
        await self._inner.forget(principal)


class GatedMemories(MemoryStore):
    """Recalls for the run's principal what it may still read; keeps a memory with everything the run has seen."""

    def __init__(self, inner: MemoryStore, log: RunLog) -> None:
        self._inner, self._log = inner, log

    async def add(self, owner: Principal, memories: Sequence[Memory]) -> None:
        _own(self._log, owner)
        own = Label.of(ACL((owner.own_grant,)))
        kept = [Memory(m.id, m.owner, m.text, m.label | self._log.floor | own) for m in memories]
        await self._inner.add(owner, kept)
        ids: list[JSON] = [m.id for m in kept]
        self._log.note("memory.kept", {"ids": ids})

    async def recall(self, owner: Principal, about: str, readable: Grants, k: int) -> list[Memory]:
        _own(self._log, owner)
        allowed = readable & await self._log.policy.grants(owner)
        memories = await self._inner.recall(owner, about, allowed, k)
        if not all(memory.label.may_flow_to(allowed) for memory in memories):
            raise StoreError(
                f"{type(self._inner).__name__} recalled what its owner may not receive any more",
                hint="do not use this store until it passes `ringwall.personalization.contract`",
            )
        if memories:
            ids: list[JSON] = [m.id for m in memories]
            self._log.note("memory.recalled", {"ids": ids}, label=join([m.label for m in memories]))
        return memories

    async def forget(self, owner: Principal, ids: Sequence[str] | None = None) -> None:
        _own(self._log, owner)
        await self._inner.forget(owner, ids)


def _own(log: RunLog, principal: Principal) -> None:
    if principal.own_grant != log.principal.own_grant:
        raise FlowDenied("a run touches the profile and memories of its own principal only")


class OnBehalf(Protocol):
    """Whose run asks, and which policy."""

    @property
    def policy(self) -> Policy: ...

    @property
    def principal(self) -> Principal: ...


async def caused_by(
    log: OnBehalf, sources: Iterable[Source], action: str, resource: str, *, policy: Policy | None = None
) -> Decision:
    """Ask for each source whether it may cause the action; the strictest answer counts.

    Several rules that ask each want their own yes. `policy` stands in for that of the run.

    The run's principal answers for its own words; any other source is asked about by its name
    (`doc:menu.md`, `web:example.org`).
    """
    principal, strictest, policy = log.principal, None, policy or log.policy
    for source in sorted(sources):  # in one order, so that the same run gives the same reason
        who = principal if source == principal.id else source_principal(source, principal.tenant)
        decision = await policy.decide(who, action, resource)
        if decision.verdict is Verdict.DENY:
            return decision
        if strictest is None:
            strictest = decision
        elif decision.verdict is Verdict.ASK:
            strictest = decision if strictest.verdict is Verdict.ALLOW else _both(strictest, decision)
    return Decision.no_rule("nobody", action, resource) if strictest is None else strictest


def _both(earlier: Decision, later: Decision) -> Decision:
    """Two rules that ask about one call: the later one decides, and the earlier one asks as well."""
    if later in (replace(earlier, also=()), *earlier.also):
        return earlier
    return replace(later, also=(*earlier.also, replace(earlier, also=())))


def source_principal(source: Source, tenant: str) -> Principal:
    """A source as the policy knows it."""
    return Principal(source.replace(TENANT_MARK, ":"), tenant)


async def may_flow(log: RunLog, label: Label, receiver: Principal) -> bool:
    """Ask, and write the answer down before anything leaves: a disclosure is never only in memory."""
    allowed = label.may_flow_to(await log.policy.grants(receiver))
    log.note("flow.allowed" if allowed else "flow.denied", _flow(log, label, receiver))
    await log.flush()
    return allowed


def _flow(log: RunLog, label: Label, receiver: Principal) -> dict[str, JSON]:
    """Who was to receive what: all that is needed to ask again; what a run has seen goes without saying."""
    body: dict[str, JSON] = {"receiver": receiver.id}
    if receiver.tenant:
        body["tenant"] = receiver.tenant
    if receiver.roles:
        body["roles"] = [*sorted(receiver.roles)]
    if not label <= log.floor:
        body["more"] = True  # than the event's own label admits to be told
    elif label != log.floor:
        body["label"] = cast(JSON, label.to_json())
    return body


async def may_disclose(log: RunLog, receiver: Principal, texts: Sequence[str]) -> bool:
    """Ask whether an embedder or reranker elsewhere may receive texts of this run, and write the answer down.

    The user's question, word for word, carries its own label; any other text could be made from all the run has seen.
    """
    label = log.question.label if all(text == log.question.value for text in texts) else log.floor
    return await may_flow(log, label, in_tenant_of(receiver, log.principal.tenant))


async def release(log: RunLog, *, as_: str) -> None:
    """Let text out to the run's principal, writing `as_` down, if it may receive all that the run has seen.

    Raises `FlowDenied` otherwise, and writes that down.
    """
    allowed = log.floor.may_flow_to(await log.policy.grants(log.principal))
    log.note(as_ if allowed else "flow.denied", {"receiver": log.principal.id})
    if not allowed:
        raise FlowDenied("the answer rests on what you may not receive")
