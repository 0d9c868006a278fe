"""What `ringwall policy` does: check, test, explain and simulate the rules."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic_core import to_json
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from ringwall.audit_commands import plain, policy_in
from ringwall.deployment.changes import Change, ChangeKind
from ringwall.deployment.expectations import Outcome, Question, Report, read_expectations, run_expectations, untested
from ringwall.deployment.policy_check import Finding, Known, Severity, check
from ringwall.deployment.reasons import Reasons, reasons, reasons_by_rules
from ringwall.deployment.rules import Rules, read_statements
from ringwall.deployment.ruleset import Rule
from ringwall.deployment.simulation import Simulation, simulate
from ringwall.errors import InvalidInput
from ringwall.interface.base import Effect
from ringwall.named_app import app_named
from ringwall.places import evidence
from ringwall.principal import Principal

_SHOWN: Final = 12
"""How many names stand in a line; JSON has them all."""


def checked(path: Path, app: str, collections: Sequence[str], roles: Sequence[str]) -> tuple[Finding, ...]:
    """Check a file of rules. Raises `BadPolicy`, and `InvalidInput` for Casbin's lines."""
    return check(_rules_in(path), known=_known(app, collections, roles))


def show_findings(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print what was found; return how many warnings there are."""
    warnings = sum(finding.severity is Severity.WARNING for finding in findings)
    if as_json:
        _write_json(findings)
        return warnings
    console = Console()
    for finding in findings:
        style = "yellow" if finding.severity is Severity.WARNING else ""
        console.print(plain(f"line {finding.line}: {finding.kind}: {finding.text}", style), soft_wrap=True)
        console.print(plain(f"    {finding.what}", "dim"), soft_wrap=True)
    _say(f"{warnings} warnings, {len(findings) - warnings} notes")
    return warnings


async def tested(path: Path, tests: Path) -> tuple[Report, tuple[str, ...]]:
    """Run the tests in a file; return what came of it, and the lines of rules that no test was decided by."""
    expected = read_expectations(_text(tests))
    policy = policy_in(path)
    try:
        report = await run_expectations(policy, expected)
    finally:
        await policy.close()
    if not isinstance(policy, Rules):
        return report, ()
    ids = [statement.says.id for statement in read_statements(_text(path)) if isinstance(statement.says, Rule)]
    return report, untested(report, ids)


def show_report(report: Report, never: Sequence[str], *, as_json: bool) -> int:
    """Print what came of tests; return how many failed."""
    failed = report.failed
    if as_json:
        _write_json({"outcomes": report.outcomes, "failed": len(failed), "untested": never})
        return len(failed)
    for outcome in failed:
        _show_failure(outcome)
    _say(f"{len(report.outcomes)} tests, {len(failed)} failed", "bold red" if failed else "bold green")
    if never:
        _say(f"no test was decided by {', '.join(never)}", "dim")
    return len(failed)


async def explained(path: Path, question: Question) -> Reasons:
    """Why the policy in a file decides so; by Casbin's lines without what to change."""
    if path.suffix != ".csv":
        return await reasons_by_rules(_text(path), question)
    policy = policy_in(path)
    try:
        return await reasons(policy, question)
    finally:
        await policy.close()


def show_reasons(found: Reasons, *, as_json: bool) -> None:
    """Print why a policy decided so, and what would allow it, as a tree or as JSON."""
    if as_json:
        _write_json(found)
    else:
        Console().print(_tree(found))


async def simulated(source: str, policy: Path, new: Path, as_: Principal, since: float, until: float) -> Simulation:
    """Ask the policy in the file `new` what was asked in a journal. Raises `ChainBroken`."""
    in_force, other = policy_in(policy), policy_in(new)
    try:
        async with evidence(source) as journal:
            return await simulate(journal, other, policy=in_force, as_=as_, since=since, until=until)
    finally:
        await in_force.close()
        await other.close()


def show_simulation(found: Simulation, *, as_json: bool) -> int:
    """Print what would have been decided otherwise; return how many decisions."""
    if as_json:
        _write_json(found)
        return len(found.differences)
    table = Table("what", "was", "would be", "how often")
    for (kind, was, now), count in sorted(found.counted.items()):
        table.add_row(kind, was, now, str(count))
    if found.differences:
        Console().print(table)
    for each in found.differences:
        by = f", by {each.rule}" if each.rule else ""
        _say(f"{each.run} {each.seq}: {each.who} {each.kind} {each.what}: {each.was}, would be {each.now}{by}")
        if each.reason:
            _say(f"    {each.reason}", "dim")
    _say(f"{found.decisions} decisions in {found.runs} runs, {len(found.differences)} would be others")
    if found.withheld:
        _say(f"{found.withheld} events are withheld: their labels do not admit you", "yellow")
    return len(found.differences)


def _tree(found: Reasons) -> Tree:
    root = Tree(plain(f"{found.decision.verdict}: {found.decision.reason}", "bold"))
    for part in found.parts:
        branch = root.add(
            plain(f"{part.who}: {part.decision.verdict}, by {part.decision.rule}: {part.decision.reason}")
        )
        for link in part.through:
            branch.add(plain(f"{link.holder} is given {link.grant} by line {link.line}", "dim"))
        if part.overruled:
            branch.add(plain(f"overruled: {', '.join(part.overruled)}", "dim"))
    for number, change in enumerate(found.changes):
        _add_change(root, change, "smallest change" if number == 0 else "or")
    if found.in_the_way:
        root.add(plain(f"no single change would allow it; in the way: {', '.join(found.in_the_way)}"))
    return root


def _add_change(tree: Tree, change: Change, lead: str) -> None:
    where = f"line {change.number}: " if change.number else ""
    branch = tree.add(plain(f"{lead}: {change.kind}: {where}{change.line}", "bold"))
    removes = change.kind is ChangeKind.REMOVE_HOLDING
    for what, more in (
        ("also for", change.also_for),
        ("takes away" if removes else "gives", change.grants),
        ("no longer held back by" if removes else "also by", change.rules),
    ):
        if more:
            rest = f" and {len(more) - _SHOWN} more" if len(more) > _SHOWN else ""
            branch.add(plain(f"{what}: {', '.join(more[:_SHOWN])}{rest}", "yellow"))
    if change.breadth == (0, 0):
        branch.add(plain("opens nothing else", "dim"))


def _show_failure(outcome: Outcome) -> None:
    _say(f"line {outcome.line}: {outcome.text}", "red")
    _say(f"    got: {outcome.got}")


def _rules_in(path: Path) -> str:
    if path.suffix == ".csv":
        raise InvalidInput(f"{path} holds Casbin's lines", expected="rules, as `ringwall.Rules` reads them")
    return _text(path)


def _known(app: str, collections: Sequence[str], roles: Sequence[str]) -> Known:
    named = frozenset(name.removeprefix("collection:") for name in collections) if collections else None
    vouched = frozenset(name.removeprefix("role:") for name in roles) if roles else None
    if not app:
        return Known(collections=named, roles=vouched)
    built = app_named(app)
    tools = {tool.name: tool for tool in built.tools}
    irreversible = frozenset(name for name, tool in tools.items() if tool.effect is Effect.IRREVERSIBLE)
    return Known(frozenset(tools), frozenset((built.name,)), named, vouched, irreversible)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", expected="a text file in UTF-8") from error


def _write_json(value: object) -> None:
    sys.stdout.write(to_json(value, indent=2).decode() + "\n")


def _say(text: str, style: str = "") -> None:
    Console().print(plain(text, style), soft_wrap=True)
