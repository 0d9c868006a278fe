"""What becomes of the earlier version of a document that could not be replaced: who lost the right reads it no more.

The new text may not be embeddable, or not at once; that its source took readers away holds all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ringwall.data.base import DocumentStore
from ringwall.data.manifest import Manifest
from ringwall.data.outcome import Refused
from ringwall.data.preparation import Job
from ringwall.principal import ACL, PUBLIC, Grant


class Narrowing:
    """Leaves earlier versions to those who could read them and still may; removes them if there is nobody."""

    def __init__(self, store: DocumentStore, manifest: Manifest) -> None:
        self._store, self._manifest = store, manifest

    async def at_once(self, jobs: Iterable[Job]) -> None:
        """Narrow what the manifest knows, before anything is done that can fail."""
        known = await asyncio.to_thread(self._known, [job for job in jobs if job.readers and job.outcome is None])
        changes = [(job, old, left(old, job.readers)) for job, old in known if job.readers]
        await self._narrow([(job, readers) for job, old, readers in changes if readers != old])

    async def of(self, jobs: Iterable[Job]) -> None:
        """Narrow all earlier versions of these, and say so in what was refused. Raises `StoreError`."""
        said = [job for job in jobs if job.readers and not job.readers.is_public]
        old = {job.name: readers for job, readers in await asyncio.to_thread(self._known, said)}
        old |= await self._found([job for job in said if job.name not in old])
        changes = [(job, left(old.get(job.name), job.readers)) for job in said if job.readers]
        await self._narrow([(job, readers) for job, readers in changes if not readers or readers != old[job.name]])

    def _known(self, jobs: Sequence[Job]) -> list[tuple[Job, ACL]]:
        found = [(job, self._manifest.find(job.name)) for job in jobs]
        return [(job, entry.readers) for job, entry in found if entry]

    async def _found(self, jobs: Sequence[Job]) -> dict[str, ACL]:
        """The readers of those earlier versions that one of the new readers may read; of the others none is left."""
        grants = frozenset(grant for job in jobs for grant in job.readers or ()) | {PUBLIC}
        chunks = await self._store.get([f"{job.name}#0" for job in jobs], grants) if jobs else ()
        return {chunk.document: chunk.readers for chunk in chunks}

    async def _narrow(self, changes: Sequence[tuple[Job, frozenset[Grant]]]) -> None:
        if not changes:
            return
        names = [job.name for job, _ in changes]
        entries = await asyncio.to_thread(lambda: [self._manifest.find(name) for name in names])
        await asyncio.to_thread(self._manifest.begin, names)
        gone = [job.name for job, readers in changes if not readers]
        if gone:
            await self._store.delete(gone)
            await asyncio.to_thread(self._manifest.forget, gone)
        kept = [(job, ACL(readers)) for job, readers in changes if readers]
        for readers in {readers for _, readers in kept}:
            await self._store.set_readers([job.name for job, its in kept if its == readers], readers)
        by_name = {job.name: readers for job, readers in kept}
        done = [e._replace(readers=by_name[e.name]) for e in entries if e and e.name in by_name]
        await asyncio.to_thread(self._manifest.finish, done)
        for job, left_to in changes:
            if isinstance(job.outcome, Refused):
                job.outcome = replace(job.outcome, earlier="narrowed" if left_to else "removed")


def left(old: ACL | None, new: ACL) -> frozenset[Grant]:
    """Who may still read what `old` could: nobody may who could not, and nobody who may not any more."""
    if old is None:
        return frozenset()
    if new.is_public:
        return old
    return new if old.is_public else old & new


__all__ = ["Narrowing", "left"]
