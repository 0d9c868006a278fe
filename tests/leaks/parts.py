"""Where everything is kept, so that several apps can share it; and a disk that fails now and then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ringwall import MemoryStore, Principal
from ringwall.data import DocumentStore
from ringwall.deployment.journal import (
    Draft,
    Event,
    Head,
    InMemoryJournal,
    Inspection,
    Journal,
    RunRecord,
    RunStatus,
    Worker,
)
from ringwall.deployment.ledger import InMemoryLedger, Ledger
from ringwall.deployment.sealing import Sealer
from ringwall.errors import JournalUnavailable
from ringwall.model.cache import InMemoryReplies, KeptReply
from ringwall.personalization import InMemoryMemories, InMemoryProfiles, ProfileStore
from ringwall.personalization import MemoryStore as Memories
from ringwall_audit import AesSealer, InMemoryKeys
from ringwall_sql import SqlDocuments, SqlJournal, SqlLedger, SqlMemories, SqlProfiles
from tests.leaks.doing import DOING, NOTHING
from tests.leaks.stores import Digests
from tests.leaks.witness import Witness


class Parts:
    """Where everything is kept; opened anew for each app that shares it."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._journal = InMemoryJournal()
        self._sealer = AesSealer(InMemoryKeys())
        self._documents, self._memories, self._profiles = MemoryStore(), InMemoryMemories(), InMemoryProfiles()
        self._ledger = InMemoryLedger()

    def open(self) -> tuple[Flaky, Sealer, DocumentStore, Memories, ProfileStore]:
        if self.folder is None:
            return Flaky(self._journal), self._sealer, self._documents, self._memories, self._profiles
        file = self.folder / "all.db"
        sealer = AesSealer.at(self.folder / "keys.db")
        documents = SqlDocuments(self.folder / "documents.db")
        return Flaky(SqlJournal(file)), sealer, documents, SqlMemories(file), SqlProfiles(file)

    def ledger(self) -> Ledger:
        return self._ledger if self.folder is None else SqlLedger(self.folder / "all.db")


class Flaky(Journal):
    """A journal whose disk may fail for a while: what a run did last is then in doubt."""

    def __init__(self, inner: Journal) -> None:
        self.inner, self.is_down = inner, False

    def _check(self) -> None:
        if self.is_down:
            raise JournalUnavailable("the disk is gone")

    async def start(
        self,
        run: str,
        owner: str,
        drafts: Sequence[Draft],
        *,
        status: RunStatus = RunStatus.RUNNING,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        self._check()
        return await self.inner.start(run, owner, drafts, status=status, durable=durable, worker=worker)

    async def append(
        self,
        run: str,
        drafts: Sequence[Draft],
        after: Head,
        *,
        status: RunStatus | None = None,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        self._check()
        return await self.inner.append(run, drafts, after, status=status, durable=durable, worker=worker)

    async def read(self, run: str) -> list[Event]:
        return await self.inner.read(run)

    async def record(self, run: str) -> RunRecord:
        return await self.inner.record(run)

    async def runs(self, status: RunStatus | None = None) -> list[RunRecord]:
        return await self.inner.runs(status)

    async def inspect(self, inspection: Inspection) -> None:
        await self.inner.inspect(inspection)

    async def close(self) -> None:
        await self.inner.close()


class CountedReplies(InMemoryReplies):
    """Counts how often somebody was given a reply that was kept."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness

    async def get(self, key: str) -> KeptReply | None:
        reply = await super().get(key)
        self._witness.told["cache"] += reply is not None
        return reply


class Embedder(Digests):
    """An embedder elsewhere: it receives what it embeds."""

    principal = Principal("model:embedder")  # type: ignore[assignment]

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.tenant = ""

    def embed_query(self, text: str) -> list[float]:
        doing = DOING.get(NOTHING)
        asker = doing.who if doing.run else Principal("user:nobody", self.tenant)
        self.witness.hears(Principal("model:embedder", asker.tenant), "embedder", text, run=doing.run, asker=asker)
        return super().embed_query(text)
