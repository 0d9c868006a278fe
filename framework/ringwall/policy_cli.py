"""The command line of policies: `ringwall policy check`, `test`, `explain`, `simulate`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ringwall import policy_commands
from ringwall.audit_cli import AsJson
from ringwall.deployment.expectations import Question
from ringwall.places import EvidencePlace
from ringwall.principal import Principal

app = typer.Typer(help="Check, test, explain and simulate a policy.", no_args_is_help=True)

PolicyPath = Annotated[
    Path, typer.Argument(help="Rules, or Casbin's lines in a .csv.", exists=True, dir_okay=False, show_default=False)
]


@app.command("check")
def check_policy(
    rules: PolicyPath,
    app_: Annotated[str, typer.Option("--app", help="`package.module:app`: whose tools there are.")] = "",
    collection: Annotated[list[str], typer.Option(help="A collection that there is, repeated.")] = [],  # noqa: B006
    role: Annotated[list[str], typer.Option(help="A role that is vouched for, repeated.")] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Find lines that decide nothing, open too much or name what is not there; exits with 1 if one is to be mended."""
    findings = policy_commands.checked(rules, app_, collection, role)
    raise typer.Exit(1 if policy_commands.show_findings(findings, as_json=as_json) else 0)


@app.command("test")
def try_policy(
    rules: PolicyPath,
    tests: Annotated[Path, typer.Argument(help="A file of tests, a line each.", exists=True, dir_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Ask a policy what a file of tests says, and name the lines that came out otherwise; exits with 1 if any."""
    report, never = asyncio.run(policy_commands.tested(rules, tests))
    raise typer.Exit(1 if policy_commands.show_report(report, never, as_json=as_json) else 0)


@app.command("explain")
def explain_decision(
    rules: PolicyPath,
    who: Annotated[str, typer.Argument(help="Who asks: `user:ana`.")],
    action: Annotated[str, typer.Argument(help="`ask`, `call`, `approve`, `audit`.")],
    resource: Annotated[str, typer.Argument(help="`app:dinner`, `tool:book_table`.")],
    source: Annotated[list[str], typer.Option("--with", help="What else had a part in it, repeated.")] = [],  # noqa: B006
    role: Annotated[list[str], typer.Option(help="A role that is vouched for, repeated.")] = [],  # noqa: B006
    tenant: Annotated[str, typer.Option(help="The tenant of who asks.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say by which rule something is allowed, asked about or denied, through which roles, and what would allow it."""
    question = Question(Principal(who, tenant, frozenset(role)), action, resource, tuple(source))
    policy_commands.show_reasons(asyncio.run(policy_commands.explained(rules, question)), as_json=as_json)


@app.command("simulate")
def simulate_policy(
    journal: EvidencePlace,
    policy_: Annotated[Path, typer.Option("--policy", help="The policy in force: who may audit.", exists=True)],
    new: Annotated[Path, typer.Option(help="The policy to try.", exists=True, dir_okay=False)],
    as_: Annotated[str, typer.Option("--as", help="Who looks: `user:mia`.")],
    role: Annotated[list[str], typer.Option(help="A role that you vouch for, repeated.")] = [],  # noqa: B006
    tenant: Annotated[str, typer.Option(help="The tenant of who looks.")] = "",
    since: Annotated[datetime, typer.Option(help="Runs that began then or later, in UTC.")] = datetime(1970, 1, 1),  # noqa: DTZ001
    until: Annotated[datetime, typer.Option(help="Runs that began then or before, in UTC.")] = datetime(9999, 1, 1),  # noqa: DTZ001
    as_json: AsJson = False,
) -> None:
    """Ask another policy what was asked in a journal; exits with 1 if it would have decided something otherwise.

    Told is what `--as` may see. Only the owner may see a run, and who may `audit` by the policy in force.
    """
    reader = Principal(as_, tenant, frozenset(role))
    begun, ended = (moment.replace(tzinfo=UTC).timestamp() for moment in (since, until))
    found = asyncio.run(policy_commands.simulated(journal, policy_, new, reader, begun, ended))
    raise typer.Exit(1 if policy_commands.show_simulation(found, as_json=as_json) else 0)
