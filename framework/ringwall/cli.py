"""The command line: `ringwall demo`, `ingest`, `data verify`, `models list`, `audit verify`, `policy check`, ..."""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ringwall import (
    approval_commands,
    audit_cli,
    health_commands,
    plugins,
    policy_cli,
    prompt_commands,
    work_commands,
)
from ringwall.audit_cli import AsJson
from ringwall.data.alike import THRESHOLD
from ringwall.data.duplicates import Copies, Copy
from ringwall.errors import RingwallError, UnknownPlugin
from ringwall.filling import Filling, back_up, check, copies_in, reembed, rules_for, write_out
from ringwall.library import has_index
from ringwall.model.base import Price
from ringwall.model.files import MOST_KL, TuneOptions
from ringwall.model.registry import Hosted, Kind, Open, Origin, Own
from ringwall.model_commands import ModelCommands, tools
from ringwall.schema import JSON, canonical
from ringwall.staging import Stage

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(audit_cli.app, name="audit")
app.add_typer(approval_commands.app, name="approvals")
data = typer.Typer(help="Check and copy a library.", no_args_is_help=True)
app.add_typer(data, name="data")
models = typer.Typer(help="Pin, inspect, verify and tune models.", no_args_is_help=True)
app.add_typer(models, name="models")
prompts = typer.Typer(help="List, add, compare and move versions of prompts.", no_args_is_help=True)
app.add_typer(prompts, name="prompts")
app.add_typer(policy_cli.app, name="policy")

LIBRARY = Path("library")
LibraryPath = Annotated[Path, typer.Argument(help="The library's folder.", exists=True, file_okay=False)]
REGISTRY = Path("models.json")
RegistryPath = Annotated[Path, typer.Option(help="The file that names the models; need not be there.")]
PROMPTS = Path("prompts.json")
PromptsPath = Annotated[Path, typer.Option("--registry", help="The file of the prompts; need not be there.")]
PromptName = Annotated[str, typer.Argument(metavar="NAME", help="The prompt's name.")]
Note = Annotated[str, typer.Option(help="Why.")]
Target = Annotated[str, typer.Argument(metavar="FILE|NAME", help="A model's file or name.", show_default=False)]


@app.command()
def demo() -> None:
    """A governed assistant books dinner: local model, no key, no network."""
    folder = example("dinner_assistant")
    sys.path.insert(0, str(folder))
    sys.argv = [str(folder / "demo.py")]
    runpy.run_path(str(folder / "demo.py"), run_name="__main__")


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Folders and files; ids begin with a folder's name.")],
    library: Annotated[Path, typer.Option(help="The folder of the library; made if it is not there.")] = LIBRARY,
    readers: Annotated[list[str], typer.Option(help="Who reads what no rule speaks of: grants, repeated.")] = [],  # noqa: B006
    rules: Annotated[Path | None, typer.Option(help="A file of lines `pattern grant...`; the first that fits.")] = None,
    front_matter: Annotated[bool, typer.Option(help="Ask each file's own front matter first.")] = False,
    beside: Annotated[bool, typer.Option(help="Ask NAME.readers beside a file or folder.")] = False,
    permissions: Annotated[bool, typer.Option(help="Ask each file's permissions.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose documents these are.")] = "",
    embeddings: Annotated[str, typer.Option(help="Embedder of a new library, or `none`.")] = "",
    passage_tokens: Annotated[int | None, typer.Option(help="Tokens of a passage at most, cut by structure.")] = None,
    keep_missing: Annotated[bool, typer.Option(help="Keep documents whose files are gone.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that read and embed, on Ray; 0: this one does.", min=0)] = 0,
    cluster: Annotated[str, typer.Option(help="Address of the Ray cluster; without it Ray is started here.")] = "",
) -> None:
    """Put files into a library, each with its readers; of what is there already only what changed.

    Nobody reads what no rule gives readers: such files are refused. Exits with 1 if a file was refused.
    """
    asked = {"front_matter": front_matter, "beside": beside, "mode": permissions}
    sources = [(path, rules_for(path, readers, rules, **asked)) for path in paths]
    filling = Filling(sources, tenant=tenant, keep_missing=keep_missing, console=Console())
    crew = plugins.find("data", "ray")(workers, address=cluster) if workers or cluster else None
    raise typer.Exit(asyncio.run(filling.run(library, embeddings, passage_tokens, crew)))


@data.command("verify")
def verify_library(library: LibraryPath) -> None:
    """Check that every chunk has readers, every vector its size, and nothing is missing; exits with 1 if not."""
    checked = asyncio.run(check(library))
    console = Console()
    for finding in checked.findings:
        console.print(finding, markup=False, highlight=False)
    console.print(f"{checked.documents} documents, {checked.chunks} passages, {len(checked.findings)} findings")
    raise typer.Exit(1 if checked.findings else 0)


@data.command()
def backup(library: LibraryPath, to: Annotated[Path, typer.Argument(help="A folder that is new or empty.")]) -> None:
    """Make another library of all that this one holds, while it is being searched; no ingestion may run."""
    Console().print(f"{asyncio.run(back_up(library, to))} passages")


@data.command("reembed")
def reembed_library(
    library: LibraryPath, embeddings: Annotated[str, typer.Option(help="The embedder it gets.")]
) -> None:
    """Change a library's embedder while it is being searched; no ingestion may run. Called again, it goes on."""
    console = Console()
    console.print(f"{asyncio.run(reembed(library, embeddings, console))} passages embedded")


@data.command("duplicates")
def duplicates_in(
    library: LibraryPath,
    threshold: Annotated[float, typer.Option(help="The share of word runs that two must have in common.")] = THRESHOLD,
    documents: Annotated[bool, typer.Option(help="Compare whole documents, not passages.")] = False,
    other_readers: Annotated[bool, typer.Option(help="Only what has different readers in different copies.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write a line of JSON for each group of copies.")] = False,
) -> None:
    """Find what is there more than once, or nearly so; exits with 1 if copies have different readers."""
    found = asyncio.run(copies_in(library, threshold, "documents" if documents else "passages"))
    suspicious = [copies for copies in found if copies.have_other_readers]
    shown = suspicious if other_readers else found
    if as_json:
        for copies in shown:
            sys.stdout.write(canonical(_as_json(copies)) + "\n")
    else:
        console = Console()
        console.print(_as_table(shown))
        console.print(f"{len(found)} groups of copies, {len(suspicious)} of them with different readers")
    raise typer.Exit(1 if suspicious else 0)


@data.command()
def export(library: LibraryPath) -> None:
    """Write all that a library holds to standard output: a line of JSON for each passage, readers included."""
    asyncio.run(write_out(library, sys.stdout))


@models.command("list")
def list_models(registry: RegistryPath = REGISTRY, as_json: AsJson = False) -> None:
    """Show the models that are known, and those that are installed with a plugin."""
    ModelCommands(registry, as_json=as_json).list()


@models.command("add")
def add_model(
    name: Annotated[str, typer.Argument(help="A new name: letters, digits, `.`, `_`, `-`; `@` before a version.")],
    file: Annotated[Path | None, typer.Argument(help="The file of an open model, or one of your own.")] = None,
    origin: Annotated[Origin, typer.Option(help="Who made it, or runs it.")] = Origin.OPEN,
    licence: Annotated[str, typer.Option(help="Of an open model; what its file says by default.")] = "",
    source: Annotated[str, typer.Option(help="Where an open model came from.")] = "",
    base: Annotated[str, typer.Option(help="What an own model was made of.")] = "",
    recipe: Annotated[str, typer.Option(help="How an own model was made.")] = "",
    data: Annotated[list[Path], typer.Option(help="What an own model was made from, repeated; hashed.")] = [],  # noqa: B006
    kind: Annotated[Kind, typer.Option(help="What an own file is.")] = Kind.MODEL,
    provider: Annotated[str, typer.Option(help="The plugin that speaks to a hosted model.")] = "hosted",
    model: Annotated[str, typer.Option(help="A hosted model's name there.")] = "",
    base_url: Annotated[str, typer.Option(help="A hosted model's address.")] = "",
    window: Annotated[int, typer.Option(help="A hosted model's window in tokens.")] = 0,
    price: Annotated[tuple[float, float], typer.Option(help="Of a million tokens read and written, in dollars.")] = (
        0.0,
        0.0,
    ),
    terms: Annotated[str, typer.Option(help="Under which a hosted model may be used.")] = "",
    registry: RegistryPath = REGISTRY,
) -> None:
    """Give a model a name; a local file is pinned by its SHA-256."""
    commands = ModelCommands(registry)
    if origin is Origin.HOSTED:
        commands.add(Hosted(name, provider, model, base_url, window, Price(*price), terms))
        return
    if file is None:
        raise typer.BadParameter("an open or own model needs its file")
    if origin is Origin.OWN and not data:
        raise typer.BadParameter("an own model needs what it was made from: --data FILE")
    if origin is Origin.OPEN:
        commands.add(Open(name, commands.pinned(file), licence or tools().facts(file).licence, source))
    else:
        commands.add(Own(name, commands.pinned(file), base, recipe, commands.hash_of(data), kind))


@models.command("remove")
def remove_model(name: str, registry: RegistryPath = REGISTRY) -> None:
    """Forget a model; its file stays where it is."""
    ModelCommands(registry).remove(name)


@models.command("stage")
def stage_model(
    name: Annotated[str, typer.Argument(help="The version to move, such as `qwen@2`.")],
    stage: Annotated[Stage, typer.Argument(help="Where to.")],
    percent: Annotated[float, typer.Option(help="Of the askers, for a canary.", min=0, max=100)] = 0,
    note: Note = "",
    registry: RegistryPath = REGISTRY,
) -> None:
    """Bring a version to a stage; what was there is retired."""
    ModelCommands(registry).stage(name, stage, percent, note)


@models.command("diff")
def diff_models(old: str, new: str, registry: RegistryPath = REGISTRY) -> None:
    """Show what is said otherwise of two models or versions, line by line."""
    ModelCommands(registry).diff(old, new)


@models.command("history")
def model_history(registry: RegistryPath = REGISTRY) -> None:
    """Tell which version came to which stage when, and why."""
    ModelCommands(registry).history()


@models.command("inspect")
def inspect_model(target: Target, registry: RegistryPath = REGISTRY, as_json: AsJson = False) -> None:
    """Show what a model's file tells: size, quantisation, memory and work per token, and whether it fits here."""
    ModelCommands(registry, as_json=as_json).inspect(target)


@models.command("verify")
def verify_models(
    names: Annotated[list[str], typer.Argument(help="All local models by default.")] = [],  # noqa: B006
    registry: RegistryPath = REGISTRY,
    as_json: AsJson = False,
) -> None:
    """Read the files of local models to the last byte; exits with 1 unless each is the one that was pinned."""
    raise typer.Exit(0 if ModelCommands(registry, as_json=as_json).verify(names) else 1)


@models.command("tune")
def tune_model(
    target: Target = "",
    max_kl: Annotated[float, typer.Option(help="Nats a token that may be lost beside the original.")] = MOST_KL,
    formats: Annotated[str, typer.Option(help="To try, separated by commas.")] = "",
    threads: Annotated[str, typer.Option(help="To try, separated by commas.")] = "",
    text: Annotated[Path | None, typer.Option(help="To compare on.", exists=True, dir_okay=False)] = None,
    registry: RegistryPath = REGISTRY,
    as_json: AsJson = False,
) -> None:
    """Find the format and the threads that are fastest on this machine; by default for the model that comes along.

    Takes minutes, in which nothing else should run. What was found is kept, and used by `LlamaCpp(tune=True)`.
    """
    words = "" if text is None else text.read_text(encoding="utf-8", errors="replace") or " "  # too short, not unasked
    options = TuneOptions(tuple(_words(formats)), tuple(map(_number, _words(threads))), max_kl, words)
    ModelCommands(registry, as_json=as_json).tune(target, options)


@prompts.command("list")
def list_prompts(registry: PromptsPath = PROMPTS, as_json: AsJson = False) -> None:
    """List all versions with their stages."""
    prompt_commands.listed(registry, as_json=as_json)


@prompts.command("history")
def prompt_history(registry: PromptsPath = PROMPTS) -> None:
    """Tell which version came to which stage when, and why."""
    prompt_commands.history(registry)


@prompts.command("add")
def add_prompt(
    name: PromptName,
    version: Annotated[str, typer.Argument(help="A version that was not there.")],
    system: Annotated[Path, typer.Argument(help="The file of the instruction.", exists=True, dir_okay=False)],
    note: Note = "",
    registry: PromptsPath = PROMPTS,
) -> None:
    """Add a version as a draft."""
    prompt_commands.add(registry, name, version, system, note)


@prompts.command("diff")
def diff_prompts(
    name: PromptName,
    old: Annotated[str, typer.Argument(help="The version before.")],
    new: Annotated[str, typer.Argument(help="The version after.")],
    registry: PromptsPath = PROMPTS,
) -> None:
    """Show what changed between two versions, line by line."""
    prompt_commands.diff(registry, name, old, new)


@prompts.command("move")
def move_prompt(
    name: PromptName,
    version: Annotated[str, typer.Argument(help="The version to move.")],
    stage: Annotated[Stage, typer.Argument(help="Where to.")],
    percent: Annotated[float, typer.Option(help="Of the askers, for a canary.", min=0, max=100)] = 0,
    note: Note = "",
    registry: PromptsPath = PROMPTS,
) -> None:
    """Bring a version to a stage; what was there is retired."""
    prompt_commands.move(registry, name, version, stage, percent, note)


@app.command()
def work(
    of: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="The app, as in `main:app`.", show_default=False)],
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.01)] = 1.0,
    concurrency: Annotated[int, typer.Option(help="Runs at the same time.", min=1)] = 16,
) -> None:
    """Take up runs of an app whose process died, and waiting ones whose questions were answered or came to nothing.

    Goes on until SIGTERM or SIGINT; then it leaves what it has begun to others. Prints nothing.
    """
    work_commands.work(of, every=every, concurrency=concurrency)


@app.command()
def doctor(
    of: Annotated[str, typer.Option("--app", metavar="MODULE:NAME", help="Look at an app of yours instead.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show which plugins are known, and whether what each needs is installed.

    With `--app` show how each part of that app is, and exit with 1 if it could not answer now.
    """
    if of:
        health_commands.show(health_commands.examined(of), as_json=as_json)
        return
    table = Table("ring", "plugin", "state")
    for ring in plugins.RINGS:
        for name in plugins.names(ring):
            table.add_row(ring, name, escape(_state(ring, name)))
    console = Console()
    console.print(f"ringwall {_version()} on Python {sys.version.split()[0]}")
    console.print(table)
    console.print(f"libraries are searched {_library_search()}", markup=False, soft_wrap=True)


def main() -> None:
    """Run the command line; an error of ours is one line and exit status 1, never a stack trace."""
    try:
        app()
    except RingwallError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


def example(name: str) -> Path:
    """The folder of an example: inside the installed package, or in the checkout. Raises `UnknownPlugin`."""
    package = Path(__file__).parent
    for folder in (package / "_examples" / name, package.parents[1] / "examples" / name):
        if folder.is_dir():
            return folder
    raise UnknownPlugin(f"the example {name!r} is not installed", hint="pip install 'ringwall[demo]'")


def _as_table(found: Sequence[Copies]) -> Table:
    table = Table("likeness", "copies", "who reads it")
    for copies in found:
        share = Text(f"{copies.likeness:.2f}", style="bold red" if copies.have_other_readers else "")
        for copy in copies.copies:
            readers = " / ".join(map(" ".join, _readers(copy)))
            table.add_row(share, Text(copy.id, overflow="fold"), Text(readers, overflow="fold"))
            share = Text()
        table.add_section()
    return table


def _as_json(copies: Copies) -> JSON:
    each = [{"id": copy.id, "readers": _readers(copy)} for copy in copies.copies]
    return {"likeness": copies.likeness, "other_readers": copies.have_other_readers, "copies": each}


def _readers(copy: Copy) -> list[list[str]]:
    """The lists of readers, each in order: a document may have passages with several."""
    return sorted(sorted(acl) for acl in copy.readers)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _number(word: str) -> int:
    if not word.isdecimal():
        raise typer.BadParameter(f"{word!r} is no number of threads")
    return int(word)


def _library_search() -> str:
    if has_index():
        return "through the index in their folders"
    return "by their store: more slowly among many passages; pip install 'ringwall[index]'"


def _state(ring: str, name: str) -> str:
    try:
        plugins.find(ring, name)
    except UnknownPlugin as error:
        return str(error.hint)
    return "ready"


def _version() -> str:
    try:
        return version("ringwall")
    except PackageNotFoundError:
        return "(from source)"
