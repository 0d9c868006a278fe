"""What `ringwall models` does: the models that are known, their files, and how fast they could be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic_core import to_json
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from ringwall import plugins
from ringwall.errors import ConfigurationError, InvalidInput, UnknownPlugin
from ringwall.model.files import ModelFacts, ModelFiles, Quality, Trial, Tuned, TuneOptions
from ringwall.model.registry import (
    Advance,
    Entry,
    FileState,
    Hosted,
    ModelFile,
    ModelRegistry,
    Open,
    Version,
    sha256_of,
)
from ringwall.schema import digest
from ringwall.staging import Stage

_TOOLS: Final = "llama"

_SOURCES: Final = (
    "KV memory in f16. FLOPs: 2 for each weight that a token is multiplied with, and for each token before it "
    "4 x layers x heads x head size (PaLM, arXiv 2204.02311, appendix B)."
)


class ModelCommands:
    """The commands, about the models of a registry and those that are installed with a plugin."""

    def __init__(self, registry: Path, *, as_json: bool = False) -> None:
        self._console, self._as_json = Console(), as_json
        self._bundled = _bundled()
        self._registry = ModelRegistry(registry, bundled=self._bundled)

    def list(self) -> None:
        """Show all models; of their files what is known at a glance."""
        rows = [(entry, self._registry.state(entry.name)) for entry in self._registry.entries()]
        versions = {each.entry.name: each for each in self._registry.versions()}
        if self._as_json:
            at = {name: {"stage": v.stage, "percent": v.percent, "note": v.note} for name, v in versions.items()}
            self._print_json([{**asdict(entry), "state": state, **at.get(entry.name, {})} for entry, state in rows])
            return
        table = _table("name", "origin", "what", "size", "licence or terms", "file", "stage")
        for entry, state in rows:
            stage = _staged(versions.get(entry.name))
            table.add_row(*map(_plain, (entry.name, entry.origin, *_columns(entry), state or "", stage)))
        self._console.print(table)

    def add(self, entry: Entry) -> None:
        """Add a model, and say by which hash its file is pinned."""
        self._registry.add(entry)
        self._say(f"added {entry.name}" + ("" if isinstance(entry, Hosted) else f", pinned as {entry.file.sha256}"))

    def remove(self, name: str) -> None:
        """Forget a model; its file stays."""
        self._registry.remove(name)
        self._say(f"removed {name}")

    def stage(self, name: str, stage: Stage, percent: float, note: str) -> None:
        """Bring a version to a stage."""
        self._registry.move(name, stage, percent=percent, note=note)
        self._say(f"{name}: {stage}" + (f" for {percent:g} %" if percent else ""))

    def diff(self, old: str, new: str) -> None:
        """Print what is said otherwise of two models."""
        self._say_lines(self._registry.diff(old, new).splitlines())

    def history(self) -> None:
        """Print which version came to which stage when, and why."""
        lines = [
            f"{datetime.fromtimestamp(c.at, UTC).isoformat(' ', 'seconds')} {c.name}@{c.version} {c.stage} {c.note}"
            for c in self._registry.history()
        ]
        self._say_lines([line.rstrip() for line in lines])

    def inspect(self, target: str) -> None:
        """Show what is known of a file."""
        path, sha256 = self._opened(target)
        facts, misfit = tools().facts(path), _misfit(path)
        if self._as_json:
            more = {
                "kv_bytes_of_window": facts.kv_bytes * facts.window,
                "flops_at_window": facts.flops_at(facts.window),
            }
            self._print_json({**asdict(facts), **more, "path": path, "sha256": sha256, "misfit": misfit})
            return
        table = _table("", "")
        table.show_header, table.caption = False, _SOURCES
        for name, value in _told(facts, sha256, misfit).items():
            table.add_row(name, _plain(value))
        self._console.print(table)

    def verify(self, names: Sequence[str]) -> bool:
        """Read files to the last byte, those of all local models unless some are named; whether all are unchanged."""
        states = {name: self._verified(name) for name in names or self._local()}
        if self._as_json:
            self._print_json(states)
        else:
            for name, state in states.items():
                self._say(f"{name}: {state}")
        return all(state is FileState.UNCHANGED for state in states.values())

    def tune(self, target: str, options: TuneOptions) -> None:
        """Find what is fastest here, and show all that was tried; without a target of the model that comes along."""
        path = self._opened(target)[0] if target else self._registry.path(self._first())
        with _bar(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as bar:
            task = bar.add_task("", total=1.0)
            tuned = tools().tune(path, options, lambda what, done: bar.update(task, description=what, completed=done))
        if self._as_json:
            self._print_json(asdict(tuned))
            return
        self._console.print(_trials(tuned, options.most_kl))
        self._say(f"best: {tuned.best.format or 'the original'}, threads={tuned.best.threads}: {tuned.best.path}")

    def pinned(self, path: Path) -> ModelFile:
        """A file as it is now. Raises `BadModelFile`."""
        with _hashing(path) as advance:
            return ModelFile.pinned(path, advance)

    def hash_of(self, paths: Sequence[Path]) -> str:
        """One hash of all data: that of the file, or of the lines that are the hashes of several."""
        hashes = [_sha256(path) for path in paths]
        return hashes[0] if len(hashes) == 1 else digest("\n".join(hashes))

    def _opened(self, target: str) -> tuple[Path, str]:
        """The file that a name or a path means, and its hash; a name's file must be the one that was pinned."""
        entry = {entry.name: entry for entry in self._registry.entries()}.get(target)
        if entry is None:
            path = Path(target)
            if not path.is_file():
                raise InvalidInput(f"{target!r} is no file", expected=f"a file, or one of: {', '.join(self._local())}")
            return path, _sha256(path)
        with _hashing(self._path_of(entry)) as advance:
            path = self._registry.path(target, advance)
        return path, "" if isinstance(entry, Hosted) else entry.file.sha256

    def _verified(self, name: str) -> FileState:
        with _hashing(self._path_of(self._registry.find(name))) as advance:
            return self._registry.verify(name, advance)

    def _path_of(self, entry: Entry) -> Path:
        return Path(entry.name) if isinstance(entry, Hosted) else entry.file.path

    def _local(self) -> Sequence[str]:
        return [entry.name for entry in self._registry.entries() if not isinstance(entry, Hosted)]

    def _first(self) -> str:
        if not self._bundled:
            raise InvalidInput("no model comes along", expected="a file, or the name of a model")
        return self._bundled[0].name

    def _say(self, text: str) -> None:
        self._console.print(_plain(text), soft_wrap=True)

    def _say_lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._say(line)

    def _print_json(self, value: object) -> None:
        self._console.out(to_json(value, indent=1, inf_nan_mode="null").decode(), highlight=False)


def tools() -> ModelFiles:
    """What reads and measures model files. Raises `UnknownPlugin`, naming the extra to install."""
    found: ModelFiles = plugins.find("model-files", _TOOLS)()
    return found


def _bundled() -> Sequence[Open]:
    """The models that come along: none without the plugin, whose absence is told when it is needed."""
    with contextlib.suppress(UnknownPlugin):
        return tools().bundled()
    return ()


def _staged(version: Version | None) -> str:
    if version is None:
        return ""
    return f"{version.stage} {version.percent:g} %" if version.percent else str(version.stage)


def _columns(entry: Entry) -> tuple[str, str, str]:
    """What it is, its size, and under which terms."""
    if isinstance(entry, Hosted):
        return f"{entry.model} at {entry.base_url}", f"{entry.window:,} tokens", entry.terms
    if isinstance(entry, Open):
        return entry.file.path.name, _size(entry.file.bytes), entry.licence
    return f"{entry.kind} of {entry.base}: {entry.file.path.name}", _size(entry.file.bytes), "own"


def _told(facts: ModelFacts, sha256: str, misfit: str) -> Mapping[str, str]:
    return {
        "name": facts.name,
        "architecture": facts.architecture,
        "licence": facts.licence or "the file does not say",
        "size": _size(facts.bytes),
        "quantisation": f"{facts.quantisation}, {facts.bits_per_weight:.2f} bits per weight",
        "parameters": f"{facts.parameters:,}",
        "window": f"{facts.window:,} tokens",
        "layers": str(facts.layers),
        "KV memory": f"{facts.kv_bytes:,} bytes per token, {_size(facts.kv_bytes * facts.window)} for the window",
        "FLOPs per token": f"{facts.flops_at(0):.3g} as the first, {facts.flops_at(facts.window):.3g} after a window",
        "SHA-256": sha256,
        "this machine": misfit or "has room for it",
    }


def _misfit(path: Path) -> str:
    """Why the model does not fit into this machine; empty if it does."""
    try:
        tools().require_room(path)
    except ConfigurationError as error:
        return str(error)
    return ""


def _trials(tuned: Tuned, most_kl: float) -> Table:
    table = _table("format", "MB", "threads", "read/s", "1/s", "8/s", "burst", "PPL", "KL", "agree", "")
    table.caption = (
        "Tokens a second: of a prompt, of one reply, of eight; seconds for eight requests; perplexity; divergence from "
        "the original in nats a token, with its standard error; how often both find the same token likeliest."
    )
    original = next((trial.quality.original for trial in tuned.trials if trial.quality is not None), None)
    for trial in tuned.trials:
        verdict = "best" if trial == tuned.best else "" if trial.is_good(most_kl) else "refused"
        table.add_row(trial.format or "original", *_speeds(trial), *_qualities(trial.quality, original), verdict)
    return table


def _speeds(trial: Trial) -> Sequence[str]:
    speed = trial.speed
    rates = (f"{rate:.1f}" for rate in (speed.read, speed.one, speed.eight, speed.seconds))
    return [f"{trial.bytes / 1e6:.0f}", str(trial.threads), *rates]


def _qualities(quality: Quality | None, original: float | None) -> Sequence[str]:
    """The figures of a format; of the original its perplexity, if it was compared with anything."""
    if quality is None:
        return ["" if original is None else f"{original:.2f}", "", ""]
    return [f"{quality.perplexity:.2f}", f"{quality.kl:.2g} ±{quality.kl_error:.1g}", f"{quality.agreement:.0%}"]


def _sha256(path: Path) -> str:
    with _hashing(path) as advance:
        return sha256_of(path, advance)


@contextlib.contextmanager
def _hashing(path: Path) -> Iterator[Advance]:
    """A bar for a file that is read."""
    with _bar(TextColumn("{task.description}"), BarColumn(), DownloadColumn()) as bar:
        task = bar.add_task(f"reading {path.name}", total=path.stat().st_size if path.is_file() else None)
        yield lambda count: bar.advance(task, count)


def _table(*headers: str) -> Table:
    """A table in which nothing is left out however narrow the terminal is."""
    return Table(
        *(Column(header, overflow="fold") for header in headers), box=SIMPLE, padding=0, caption_justify="left"
    )


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _plain(text: str) -> Text:
    """A text as it is, whoever wrote it: no markup, nothing that steers a terminal."""
    return Text("".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
