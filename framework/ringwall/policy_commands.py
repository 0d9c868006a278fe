"""What `ringwall policy` does: check, test, explain and simulate the rules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from rich.console import Console

from ringwall.app import App
from ringwall.audit_commands import plain, policy_in
from ringwall.deployment.expectations import Outcome, Report, read_expectations, run_expectations, untested
from ringwall.deployment.policy_check import Finding, Known, Severity, check
from ringwall.deployment.rules import Rules, read_statements
from ringwall.deployment.ruleset import Rule
from ringwall.errors import ConfigurationError, InvalidInput
from ringwall.interface.base import Effect


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
    built = _app(app)
    tools = {tool.name: tool for tool in built.tools}
    irreversible = frozenset(name for name, tool in tools.items() if tool.effect is Effect.IRREVERSIBLE)
    return Known(frozenset(tools), frozenset((built.name,)), named, vouched, irreversible)


def _app(name: str) -> App:
    """The app that `package.module:name` names. Raises `ConfigurationError` if there is none."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"no app {name!r}: {error}", hint="name it as `package.module:attribute`") from error
    finally:
        sys.path.remove("")
    if not isinstance(found, App):
        raise ConfigurationError(f"{name} is a {type(found).__name__}", hint="name a `ringwall.App`")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", expected="a text file in UTF-8") from error


def _write_json(value: object) -> None:
    sys.stdout.write(to_json(value, indent=2).decode() + "\n")


def _say(text: str, style: str = "") -> None:
    Console().print(plain(text, style), soft_wrap=True)
