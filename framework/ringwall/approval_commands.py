"""What `ringwall approvals` does: show what waits for people, and take their answers, with a journal and a policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ringwall.audit_commands import plain, policy_in
from ringwall.deployment.approvals import Approval
from ringwall.deployment.desk import ApprovalDesk, Bounds
from ringwall.deployment.journal import Journal, RunStatus
from ringwall.deployment.limits import ANYTHING, Limit
from ringwall.deployment.reading import app_of
from ringwall.deployment.standing import Standing
from ringwall.deployment.terms import seconds, written
from ringwall.errors import InvalidInput, NotWaiting
from ringwall.places import JournalPlace, opened
from ringwall.principal import Principal

T = TypeVar("T")

app = typer.Typer(help="Show what waits for people, and answer it.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
As = Annotated[str, typer.Option("--as", help="Who looks or answers: `user:mia`.")]
Roles = Annotated[list[str], typer.Option("--role", help="A role that you vouch for, repeated.")]
Tenant = Annotated[str, typer.Option(help="The tenant of who looks or answers.")]
PolicyPath = Annotated[Path | None, typer.Option("--policy", help="Rules, or Casbin's lines in a .csv; else none.")]
Calls = Annotated[
    list[str],
    typer.Option("--call", help="A call of the run or a group of them, repeated; may be left out if one is open."),
]
Note = Annotated[str, typer.Option(help="Why; kept in the journal.")]


@app.command("list")
def list_open(
    journal: JournalPlace,
    as_: As,
    role: Roles = [],  # noqa: B006
    tenant: Tenant = "",
    policy: PolicyPath = None,
) -> None:
    """Show the open questions that `--as` may see and answer."""
    found = _run(_waiting(journal, policy, Principal(as_, tenant, frozenset(role))))
    table = Table("run", "call or group", "asked by", "tool", "why", "expires")
    for each in found:
        until = _when(each.expires) + (" (escalated)" if each.escalated else "")
        table.add_row(*map(plain, (each.run, each.group, each.requester, each.tool, each.reason, until)))
    Console().print(table if found else "nothing waits for you")


@app.command()
def show(
    journal: JournalPlace,
    run: RunId,
    as_: As,
    role: Roles = [],  # noqa: B006
    tenant: Tenant = "",
    policy: PolicyPath = None,
) -> None:
    """Show a run's open questions in full: what, by whom, why, shaped by what, and what would change."""
    found = _run(_waiting(journal, policy, Principal(as_, tenant, frozenset(role))))
    mine = [question for question in found if question.run == run]
    if not mine:
        raise NotWaiting(f"run {run!r} has no question that you may answer", hint="see `ringwall approvals list`")
    for question in mine:
        Console().print(drawn(question))


@app.command()
def approve(
    journal: JournalPlace,
    run: RunId,
    as_: As,
    call: Calls = [],  # noqa: B006
    note: Note = "",
    uses: Annotated[int, typer.Option(help="Let the yes stand for so many calls more; 0: this one alone.", min=0)] = 0,
    for_: Annotated[str, typer.Option("--for", help="How long it stands: `90s`, `30m`, `4h`, `2d`.")] = "1d",
    any_: Annotated[list[str], typer.Option("--any", help="An argument that may be anything, repeated.")] = [],  # noqa: B006
    at_most: Annotated[list[str], typer.Option(help="NAME=NUMBER: the most that an argument may be, repeated.")] = [],  # noqa: B006
    this_run: Annotated[bool, typer.Option("--this-run", help="It stands for this run alone.")] = False,  # noqa: FBT002
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the line is meant.")] = False,  # noqa: FBT002
    role: Roles = [],  # noqa: B006
    tenant: Tenant = "",
    policy: PolicyPath = None,
) -> None:
    """Say yes: for these calls alone or, with `--uses`, as a rule that stands, whose line is shown first."""
    by = Principal(as_, tenant, frozenset(role))
    if not uses:
        _run(_answered(journal, policy, run, by, call, note, yes=True))
        _say(f"approved; `app.resume({run!r})` goes on")
        return
    if len(call) > 1:
        raise InvalidInput("a rule is made from one question", expected="one `--call`")
    limits = {**dict.fromkeys(any_, ANYTHING), **dict(map(_at_most, at_most))}
    bounds = Bounds(uses=uses, seconds=seconds(for_), limits=limits, this_run=this_run)
    _run(_let_stand(journal, policy, run, by, call, note, bounds, is_meant=yes))


@app.command()
def deny(
    journal: JournalPlace,
    run: RunId,
    as_: As,
    call: Calls = [],  # noqa: B006
    note: Note = "",
    role: Roles = [],  # noqa: B006
    tenant: Tenant = "",
    policy: PolicyPath = None,
) -> None:
    """Say no; the run goes on without these calls."""
    _run(_answered(journal, policy, run, Principal(as_, tenant, frozenset(role)), call, note, yes=False))
    _say(f"declined; `app.resume({run!r})` goes on")


@app.command()
def declassify(
    journal: JournalPlace,
    run: RunId,
    as_: As,
    call: Annotated[str | None, typer.Option(help="A call of the run.")] = None,
    note: Note = "",
    role: Roles = [],  # noqa: B006
    tenant: Tenant = "",
    policy: PolicyPath = None,
) -> None:
    """Let one call's arguments reach receivers that are not among their readers."""

    async def work() -> None:
        async with _desk(journal, policy, run) as desk:
            await desk.declassify(run, Principal(as_, tenant, frozenset(role)), call=call, note=note)

    _run(work())
    _say(f"declassified; `app.resume({run!r})` goes on")


@app.command()
def standing(
    journal: JournalPlace,
    as_: As,
    name: Annotated[str, typer.Option("--app", help="The app's name.")] = "app",
    revoke: Annotated[str, typer.Option(help="The id of a rule to take back.")] = "",
    note: Note = "",
    role: Roles = [],  # noqa: B006
    tenant: Tenant = "",
    policy: PolicyPath = None,
) -> None:
    """Show the rules that people let stand, or take one back."""
    by = Principal(as_, tenant, frozenset(role))

    async def work() -> list[Standing]:
        async with opened(journal) as held:
            desk = ApprovalDesk(held, policy_in(policy), name)
            if revoke:
                await desk.revoke(revoke, by, note=note)
            return await desk.standing(by)

    table = Table("id", "by", "used", "line")
    for each in _run(work()):
        table.add_row(*map(plain, (each.id, each.by, f"{len(each.uses)} of {each.rule.uses}", each.rule.line)))
    Console().print(table)


# The work


async def _waiting(journal: str, policy: Path | None, by: Principal) -> list[Approval]:
    """What waits in all apps of a journal."""
    async with opened(journal) as held:
        apps = {await _app(held, record.run): None for record in await held.runs(RunStatus.WAITING)}
        rules = policy_in(policy)
        return [each for name in apps if name for each in await ApprovalDesk(held, rules, name).waiting(by)]


async def _app(journal: Journal, run: str) -> str:
    return app_of(await journal.read(run))


@asynccontextmanager
async def _desk(journal: str, policy: Path | None, run: str) -> AsyncIterator[ApprovalDesk]:
    async with opened(journal) as held:
        yield ApprovalDesk(held, policy_in(policy), await _app(held, run))


async def _answered(
    journal: str, policy: Path | None, run: str, by: Principal, calls: Sequence[str], note: str, *, yes: bool
) -> None:
    async with _desk(journal, policy, run) as desk:
        await (desk.approve if yes else desk.deny)(run, by, calls=calls, note=note)


async def _let_stand(
    journal: str,
    policy: Path | None,
    run: str,
    by: Principal,
    calls: Sequence[str],
    note: str,
    bounds: Bounds,
    *,
    is_meant: bool,
) -> None:
    async with _desk(journal, policy, run) as desk:
        rule = await desk.draft(run, by, bounds, call=next(iter(calls), None))
        _say(rule.line)
        if is_meant or typer.confirm("Let this stand?"):
            await desk.approve(run, by, calls=calls, note=note, standing=rule)
            _say(f"approved; `app.resume({run!r})` goes on")
        else:
            _say("nothing was answered")


def _at_most(text: str) -> tuple[str, Limit]:
    name, _, number = text.rpartition("=")
    try:
        return name, Limit("<=", int(number) if number.lstrip("-").isdecimal() else float(number))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not NAME=NUMBER") from None


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


# What is seen


def drawn(question: Approval) -> Panel:
    """A question in full."""
    grid = Table.grid(padding=(0, 2))
    for name, text in _told(question):
        grid.add_row(plain(name, "dim"), plain(text))
    parts: list[Table | Text | Syntax] = [grid]
    if question.preview:
        safe = "\n".join(plain(line).plain for line in question.preview.splitlines())
        parts += [plain("what would change", "bold"), Syntax(safe, "diff", word_wrap=True, background_color="default")]
    elif question.withheld:
        parts.append(plain("what would change may not be shown to you", "yellow"))
    return Panel(Group(*parts), title=plain(f"{question.tool}: run {question.run}, call {question.call}", "bold"))


def _told(question: Approval) -> list[tuple[str, str]]:
    readers = " and ".join(sorted(f"({' or '.join(sorted(acl))})" for acl in question.label.secrecy))
    told = [
        ("asked by", question.requester),
        ("arguments", question.arguments),
        *((f"  {name}", f"shaped by {', '.join(sources)}") for name, sources in question.influences.items()),
        *(("because", f"{ask.rule}: {ask.reason} {written(ask.terms)}".strip()) for ask in question.asks),
        *(
            ("would tell", f"{receiver} what is for {' or '.join(sorted(acl))}")
            for receiver, acl in question.objections
        ),
        ("readers", readers or "everybody"),
        ("said yes", f"{', '.join(question.yes) or 'nobody yet'}; {question.lacking} wanted"),
        ("expires", _when(question.expires)),
    ]
    if question.escalates:
        told.append(("escalates", "others are asked now" if question.escalated else _when(question.escalates)))
    return [("in doubt", "was started; say what became of it with `app.resolve`"), *told] if question.in_doubt else told


def _when(time: float | None) -> str:
    return "never" if time is None else datetime.fromtimestamp(time, UTC).isoformat(" ", "seconds")


def _say(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


__all__ = ["app", "drawn"]
