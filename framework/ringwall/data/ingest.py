"""From documents to chunks in a store: each with its readers, or refused with a reason; only what changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING

from ringwall.data.admit import Pending, Readers, in_tenant
from ringwall.data.base import DocumentStore, Embeddings
from ringwall.data.ingestion import Ingestion
from ringwall.data.manifest import Manifest
from ringwall.data.outcome import IngestReport, Outcome, Refused
from ringwall.data.preparation import Preparation
from ringwall.data.receiving import PUBLIC_ONLY
from ringwall.data.splitting import ByKind, Splitter, TextSplitter, by_kind, split
from ringwall.data.workers import Workers
from ringwall.errors import InvalidInput
from ringwall.principal import Grants

if TYPE_CHECKING:
    from langchain_core.documents import Document


class Ingestor:
    """Splits, embeds and stores documents, each with its readers.

    `embeddings` None: passages can be found by their words only. `splitter` is a callable, or LangChain's,
    or one for each kind of document (`ByKind`).
    With a `manifest` a document whose content is known is not read, cut or embedded again, and one that only has
    other readers gets those; without one all is done anew.
    With `workers` they read, split and embed; otherwise threads of this process do. The store and the manifest stay
    here either way, and the outcome is the same.

    An embedder elsewhere is sent documents that somebody who holds `embedder_holds` may read; others are refused.
    """

    def __init__(
        self,
        store: DocumentStore,
        embeddings: Embeddings | None = None,
        splitter: Splitter | TextSplitter | ByKind = split,
        *,
        manifest: Manifest | None = None,
        workers: Workers | None = None,
        embedder_holds: Grants = PUBLIC_ONLY,
    ) -> None:
        self._store, self._embeddings, self._split = store, embeddings, by_kind(splitter)
        self._kept, self._workers, self._embedder_holds = manifest, workers, embedder_holds

    async def ingest(
        self,
        documents: Iterable[Document | tuple[str, str] | Pending | Refused],
        readers: Readers,
        *,
        tenant: str = "",
        all_of: str | None = None,
    ) -> IngestReport:
        """Do as `run` does, and report what became of each document."""
        outcomes = self.run(documents, readers, tenant=tenant, all_of=all_of)
        return IngestReport.of([outcome async for outcome in outcomes])

    async def run(
        self,
        documents: Iterable[Document | tuple[str, str] | Pending | Refused],
        readers: Readers,
        *,
        tenant: str = "",
        all_of: str | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Store documents, each replacing the one of the same id; yield what became of each, in order.

        A document is LangChain's, an id and a text, or what a reader of files yields. One that cannot be taken is
        refused, and the rest goes on: no readers (`DocumentWithoutReaders`), front matter that names other readers
        than an ACL given here, the id of one before it, text or id that UTF-8 cannot hold, a vector with NaN, and
        what an embedder elsewhere may not read (`FlowDenied`, before any of it is sent). An earlier version of a
        refused document stays, for those who could read it and whom its source still lets read it (`Refused.earlier`);
        so it does if the embedder fails. What was yielded is stored; memory in use does not grow with the number of
        documents.

        `all_of` says that these are all the documents there are whose ids begin so: what the manifest knows
        besides is removed, but not what lies below a folder that was refused (its id ends in `/`).

        With a `tenant`, readers are that tenant's, and so are documents: `menu.md` is stored as `acme::menu.md`,
        so that two tenants never replace each other's.

        Raises `StoreError` when the store fails, what the embedder raises when it does, `InvalidInput` for `all_of`
        without a manifest that lasts, and `ConfigurationError` if workers cannot be sent what they need.
        """
        if all_of is not None and not (self._kept and self._kept.lasts):
            raise InvalidInput("`all_of` without a manifest", hint="give the ingestor a `Manifest(path)`")
        manifest = self._kept or Manifest()
        preparation = Preparation(self._embeddings, self._split, readers, tenant, self._embedder_holds)
        ingestion = Ingestion(self._store, manifest, preparation, self._workers)
        try:
            async for outcome in ingestion.run(iter(documents)):
                yield outcome
            if all_of is not None:
                async for outcome in ingestion.remove_unseen(in_tenant(all_of, tenant)):
                    yield outcome
            await ingestion.agree()
        finally:
            if self._kept is None:
                manifest.close()
