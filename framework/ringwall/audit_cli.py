"""The command line of the journal: `ringwall audit key`, `verify`, `explain`, `erase`, ..."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ringwall import audit_commands
from ringwall.places import EvidencePlace, JournalPlace, place
from ringwall.principal import Principal

app = typer.Typer(help="Sign, check, export and explain the journal.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
KeysPath = Annotated[Path, typer.Option(help="The SQLite file of the keys that the journal is sealed with.")]
ByWhom = Annotated[str, typer.Option(help="Who erases, as the journal tells it.")]


@app.command("key")
def make_key(path: Annotated[Path, typer.Argument(help="A new file; the public half gets `.pub` at its end.")]) -> None:
    """Make an Ed25519 key to sign checkpoints with; keep it where the app cannot read it."""
    audit_commands.make_key(path)


@app.command("checkpoint")
def make_checkpoint(
    journal: JournalPlace,
    key: Annotated[Path, typer.Option(help="The file of the secret key.")],
    keep: Annotated[Path | None, typer.Option(help="A file, elsewhere, that gets what it lacks.")] = None,
    older: Annotated[list[Path], typer.Option(help="Public halves of keys used before, repeated.")] = [],  # noqa: B006
    every: Annotated[float, typer.Option(help="Seconds until the next; 0: make one and end.", min=0)] = 0,
) -> None:
    """Sign what came to the journal since the last checkpoint, so that nobody can cut it off unseen."""
    asyncio.run(audit_commands.make_checkpoints(journal, key, keep, older, every))


@app.command()
def verify(
    journal: EvidencePlace,
    key: Annotated[list[Path], typer.Option(help="Public halves of the keys that signed checkpoints, repeated.")] = [],  # noqa: B006
    kept: Annotated[Path | None, typer.Option(help="The file of checkpoints that was kept elsewhere.")] = None,
) -> None:
    """Check that no event was changed, removed or reordered; exits with 1 at the first bad one.

    With a key also that all is there that the checkpoints tell of.
    """
    asyncio.run(audit_commands.verify(journal, key, kept))


@app.command("export")
def export_journal(
    journal: JournalPlace,
    form: Annotated[audit_commands.ExportForm, typer.Option("--format", help="What is written.")] = (
        audit_commands.ExportForm.JSONL
    ),
) -> None:
    """Write a journal to standard output: a line of JSON for each run and event, whoever may read them.

    As `otel` it is the runs as OpenTelemetry traces, in OTLP's JSON, without any contents.
    """
    asyncio.run(audit_commands.export(journal, form))


@app.command("explain")
def explain_run(
    journal: EvidencePlace,
    run: Annotated[str, typer.Argument(help="The run's id.")],
    as_: Annotated[str, typer.Option("--as", help="Who looks: `user:ana`.")],
    role: Annotated[list[str], typer.Option(help="A role that you vouch for, repeated.")] = [],  # noqa: B006
    tenant: Annotated[str, typer.Option(help="The tenant of who looks.")] = "",
    policy: Annotated[Path | None, typer.Option(help="Rules, or Casbin's lines in a .csv; else none.")] = None,
    keys: Annotated[Path | None, typer.Option(help="The file of the keys that the journal is sealed with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which documents, memories and rules led to a run's answer and actions, and why each was allowed.

    Shown is what `--as` may receive. Only the owner may see a run, and who may `audit` by the policy.
    """
    reader = Principal(as_, tenant, frozenset(role))
    audit_commands.show(asyncio.run(audit_commands.explained(journal, run, reader, policy, keys)), as_json=as_json)


@app.command("erase")
def erase_subject(
    subject: Annotated[str, typer.Argument(help="Whose data: `user:ana`.")],
    journal: JournalPlace,
    keys: KeysPath,
    tenant: Annotated[str, typer.Option(help="The tenant of the subject.")] = "",
    profiles: Annotated[str | None, typer.Option(help="Where the profiles lie: file or URL.", parser=place)] = None,
    memories: Annotated[str | None, typer.Option(help="Where the memories lie: file or URL.", parser=place)] = None,
    by: ByWhom = "operator",
) -> None:
    """Erase what is kept of somebody; the journal still verifies. Again, if it was interrupted.

    A running app keeps replies in its memory: `App.erase` forgets those, too.
    """
    who = Principal(subject, tenant)
    asyncio.run(audit_commands.erase_subject(journal, who, keys, by, profiles, memories))


@app.command("retain")
def retain(
    journal: JournalPlace,
    keys: KeysPath,
    days: Annotated[float, typer.Option(help="How many days a run is kept after the day it began.", min=0)],
    by: ByWhom = "operator",
) -> None:
    """Erase the runs that are older than this; the journal still verifies. For a daily timer."""
    asyncio.run(audit_commands.retain_days(journal, keys, days, by))
