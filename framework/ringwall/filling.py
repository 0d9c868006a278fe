"""What `ringwall ingest` does: files into a library, with a bar that moves and a report at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ringwall import plugins
from ringwall.data.admit import Pending, Readers
from ringwall.data.care import Checked, exported, verify
from ringwall.data.duplicates import Copies, Unit, duplicates
from ringwall.data.frontmatter import front_matter_readers
from ringwall.data.ingest import Ingestor
from ringwall.data.outcome import Ingested, Outcome, Refused
from ringwall.data.readers import BesideIt, ByPath, ByPermission, first_of
from ringwall.data.splitting import ByKind, CountsTokens, split
from ringwall.data.workers import Workers
from ringwall.errors import ConfigurationError
from ringwall.library import Library
from ringwall.principal import ACL

_SHOWN: Final = 20
"""Refused files that are printed; more are counted."""

_EARLIER: Final = {
    "kept": "",
    "narrowed": " (its earlier version stays for those whom both let read it)",
    "removed": " (no earlier version of it is left)",
}


def rules_for(
    path: Path, readers: Sequence[str], rules: Path | None, *, front_matter: bool, beside: bool, mode: bool
) -> Readers:
    """The rules that a command line asks for, the nearest to the file first."""
    root = path.resolve().parent
    asked: list[Readers] = []
    if front_matter:
        asked.append(front_matter_readers)
    if beside:
        asked.append(BesideIt(root))
    if rules is not None:
        asked.append(ByPath.read(rules))
    if mode:
        asked.append(ByPermission(root))
    if readers:
        asked.append(ACL.of(*readers))
    return asked[0] if len(asked) == 1 else first_of(*asked)


def by_tokens(library: Library, size: int) -> ByKind:
    """A splitter that counts as the library's embedder does.

    Raises `ConfigurationError` if that one does not count, and `UnknownPlugin` if the splitter is not installed.
    """
    if not isinstance(library.embeddings, CountsTokens):
        raise ConfigurationError(
            "passages of so many tokens in a library whose embedder does not count them",
            expected="an embedder with a method `tokens`",
        )
    splitter: ByKind = plugins.find("data", "splitting")(library.embeddings.tokens, size)
    return splitter


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


def bar(console: Console) -> Progress:
    """A bar that moves, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class Filling:
    """Files on their way into a library."""

    def __init__(
        self, sources: Sequence[tuple[Path, Readers]], *, tenant: str, keep_missing: bool, console: Console
    ) -> None:
        self._sources, self._tenant, self._keep_missing, self._console = sources, tenant, keep_missing, console
        self._find = plugins.find("data", "files")
        self._counts: Counter[str] = Counter()
        self._passages = 0
        self._refused: list[Refused] = []

    async def run(
        self, folder: Path, embeddings: str, passage_tokens: int | None = None, workers: Workers | None = None
    ) -> int:
        """Fill the library in `folder` and say what became of what; return the exit status. Closes `workers`."""
        library = Library.fill(folder, embeddings=embeddings)
        try:
            with bar(self._console) as progress:
                splitter = split if passage_tokens is None else by_tokens(library, passage_tokens)
                ingestor = Ingestor(
                    library.store, library.embeddings, splitter, manifest=library.manifest, workers=workers
                )
                for path, readers in self._sources:
                    await self._fill(ingestor, path, readers, progress)
        finally:
            if workers is not None:
                await workers.close()
            await library.close()
        self._tell()
        return 1 if self._refused else 0

    async def _fill(self, ingestor: Ingestor, path: Path, readers: Readers, progress: Progress) -> None:
        task = progress.add_task(str(path), total=self._total(path) if self._console.is_terminal else None)
        async for outcome in ingestor.run(self._files(path), readers, tenant=self._tenant, all_of=self._all_of(path)):
            self._count(outcome)
            progress.advance(task)

    def _files(self, path: Path) -> Iterator[Pending | Refused]:
        found: Iterator[Pending | Refused] = self._find(path, within=_prefix(path))
        return found

    def _all_of(self, path: Path) -> str | None:
        return None if self._keep_missing or not path.is_dir() else _prefix(path)

    def _total(self, path: Path) -> int:
        return sum(1 for found in path.rglob("*") if found.is_file()) if path.is_dir() else 1

    def _count(self, outcome: Outcome) -> None:
        self._counts[type(outcome).__name__.lower()] += 1
        if isinstance(outcome, Ingested):
            self._passages += outcome.passages
        elif isinstance(outcome, Refused):
            self._refused.append(outcome)

    def _tell(self) -> None:
        for refused in self._refused[:_SHOWN]:
            line = f"refused {refused.document!r}: {refused.error}{_EARLIER[refused.earlier]}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        if len(self._refused) > _SHOWN:
            self._console.print(f"… and {len(self._refused) - _SHOWN} more")
        kinds = ("ingested", "unchanged", "relabelled", "removed", "refused")
        said = ", ".join(f"{self._counts[kind]} {kind}" for kind in kinds)
        self._console.print(f"{said}; {self._passages} passages")


async def check(folder: Path) -> Checked:
    """Check the library in a folder, its manifest too."""
    library = Library(folder, exclusively=True)
    try:
        return await verify(library.store, library.manifest)
    finally:
        await library.close()


async def back_up(folder: Path, to: Path) -> int:
    """Make another library of all that the one in a folder holds; return its passages."""
    library = Library(folder, exclusively=True)
    try:
        return await library.back_up(to)
    finally:
        await library.close()


async def reembed(folder: Path, embeddings: str, console: Console) -> int:
    """Change a library's embedder, with a bar that moves; return the passages that were embedded."""
    library = Library(folder, exclusively=True)
    try:
        with bar(console) as progress:
            task = progress.add_task(embeddings, total=library.passages)
            return await library.reembed(embeddings, told=lambda passages: progress.advance(task, passages))
    finally:
        await library.close()


async def copies_in(folder: Path, threshold: float, of: Unit) -> tuple[Copies, ...]:
    """What a library holds more than once, or nearly so."""
    library = Library(folder)
    try:
        return await duplicates(library.store, threshold=threshold, of=of)
    finally:
        await library.close()


async def write_out(folder: Path, to: TextIO) -> None:
    """Write all that a library holds, a line for each passage."""
    library = Library(folder)
    try:
        async for line in exported(library.store):
            to.write(line + "\n")
    finally:
        await library.close()


def _prefix(path: Path) -> str:
    """What the ids of a folder's files begin with; a file alone is called by its name."""
    return f"{path.resolve().name}/" if path.is_dir() else ""
