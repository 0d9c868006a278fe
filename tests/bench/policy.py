"""What a decision and `grants()` cost: `python tests/bench/policy.py`, a JSON line each, a verdict last.

10,000 principals of 100 tenants, each member of a role; 100, 10,000 and 100,000 rules beside those memberships. The
same lines are given to our own `Rules`, to `CasbinPolicy`, and to casbin's plain `Enforcer`, whose answers must be the
same. Times are of one call, in microseconds, in one thread:

- `warm`: asked before, with every principal's question in between;
- `first`: of a principal whom the policy has not seen since it was compiled, so nothing is remembered;
- `enforce`: casbin's `enforce` for some of the same questions, in turn with ours; `ratio` is how many of our warm
  decisions fit into one of those, by medians.

A change is one line added or removed, three times each: the next decision must obey. Exits with 1 unless `decide` is
at most 20 microseconds (p95, warm) at 100,000 rules, every change was obeyed, and no answer differs from casbin's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import casbin

from ringwall import Policy, Principal, Rules, Verdict
from ringwall_casbin import CasbinPolicy
from ringwall_casbin.model import BUNDLED

SIZES: Final = (100, 10_000, 100_000)
PRINCIPALS: Final = 10_000
TENANTS: Final = 100
TARGET_US: Final = 20.0
ENFORCED_SECONDS: Final = 6.0
CHANGES: Final = 3


class Line(NamedTuple):
    """One line, from which both languages are written."""

    verdict: str
    subject: str
    tenant: str
    action: str
    resource: str

    @property
    def of_ours(self) -> str:
        where = "" if self.tenant == "*" else f" in {self.tenant}"
        return f"{self.verdict} {self.subject} {self.action} {self.resource}{where}"

    @property
    def of_casbins(self) -> tuple[str, ...]:
        return (self.subject, self.tenant, self.resource, self.action, self.verdict)


class Question(NamedTuple):
    """What is asked of a policy."""

    principal: Principal
    action: str
    resource: str


@dataclass(frozen=True)
class Scene:
    """The rules of one size, who is member of which role, and a question of each principal."""

    rules: Sequence[Line]
    members: Sequence[tuple[str, str, str]]
    questions: Sequence[Question]

    @classmethod
    def of(cls, size: int) -> Scene:
        numbers = random.Random(size)
        roles, tools = max(4, size // 400), max(10, size // 100)
        rules: dict[Line, None] = {}
        while len(rules) < size:
            rules[_rule(numbers, roles, tools)] = None
        by_role: dict[tuple[str, str], list[Line]] = {}
        for line in rules:
            by_role.setdefault((line.subject, line.tenant), []).append(line)
        principals = [Principal.user(f"u{n}", tenant=f"t{n % TENANTS}") for n in range(PRINCIPALS)]
        members = [(p.id, f"role:r{numbers.randrange(roles)}", p.tenant) for p in principals]
        questions = []
        for n, (principal, (_, role, tenant)) in enumerate(zip(principals, members, strict=True)):
            # Every second question is about what a rule of the role speaks of: most would be denied otherwise.
            about = by_role.get((role, tenant)) if n % 2 else None
            resource = numbers.choice(about).resource if about else f"tool:{numbers.randrange(tools)}"
            questions.append(Question(principal, "call", resource.replace("*", "1")))
        return cls(list(rules), members, questions)

    @property
    def text(self) -> str:
        members = (f"member {who} {role} in {tenant}" for who, role, tenant in self.members)
        return "\n".join((*members, *(line.of_ours for line in self.rules)))

    def write(self, path: Path) -> None:
        members = (", ".join(("g", *member)) for member in self.members)
        rules = (", ".join(("p", *line.of_casbins)) for line in self.rules)
        path.write_text("\n".join((*members, *rules)))


def _rule(numbers: random.Random, roles: int, tools: int) -> Line:
    """A rule of roles most often; one in ten each is about a family of tools, a kind of source, or one user."""
    tool, tenant = f"tool:{numbers.randrange(tools)}", f"t{numbers.randrange(TENANTS)}"
    role = f"role:r{numbers.randrange(roles)}"
    match numbers.randrange(10):
        case 0:
            return Line("allow", role, tenant, "call", f"tool:{numbers.randrange(tools)}*")
        case 1:
            return Line("ask", f"doc:d{numbers.randrange(10 * tools)}*", "*", "call", tool)
        case 2:
            return Line("deny", f"user:u{numbers.randrange(PRINCIPALS)}", tenant, "call", tool)
        case _:
            return Line(numbers.choice(("allow", "allow", "ask")), role, tenant, "call", tool)


@dataclass(frozen=True)
class Subject:
    """A policy under measurement, and how a line is added to it and taken away again."""

    name: str
    policy: Policy
    add: Callable[[Line], Awaitable[object]]
    remove: Callable[[Line], Awaitable[object]]


def ours(scene: Scene) -> Subject:
    text = scene.text
    policy = Rules(text)

    async def add(line: Line) -> None:
        policy.replace(f"{text}\n{line.of_ours}")

    async def remove(line: Line) -> None:
        policy.replace(text)

    return Subject("rules", policy, add, remove)


def casbins(path: Path) -> Subject:
    policy = CasbinPolicy.from_files(path)
    return Subject(
        "casbin",
        policy,
        lambda line: policy.add_policy(*line.of_casbins),
        lambda line: policy.remove_policy(*line.of_casbins),
    )


def enforcer(path: Path) -> casbin.Enforcer:
    """Casbin's own reading of the file, where `ask` counts as not allowed."""
    plain = casbin.Enforcer(str(BUNDLED), str(path))
    for line in plain.get_policy():
        line[-1] = "deny" if line[-1] == "ask" else line[-1]
    return plain


async def timed(calls: Iterable[Callable[[], Awaitable[Any]]]) -> list[float]:
    """Microseconds of each call."""
    times = []
    for call in calls:
        began = time.perf_counter_ns()
        await call()
        times.append((time.perf_counter_ns() - began) / 1e3)
    return times


async def decisions(subject: Subject, questions: Sequence[Question]) -> list[float]:
    return await timed((lambda q=q: subject.policy.decide(*q)) for q in questions)  # type: ignore[misc]


async def grants(subject: Subject, questions: Sequence[Question]) -> list[float]:
    return await timed((lambda q=q: subject.policy.grants(q.principal)) for q in questions)  # type: ignore[misc]


async def forget(subject: Subject) -> None:
    """Have the policy compiled anew, so that it remembers nothing."""
    line = Line("deny", "user:nobody", "*", "call", "tool:none")
    await subject.add(line)
    await subject.remove(line)


async def compared(subject: Subject, plain: casbin.Enforcer, questions: Sequence[Question]) -> tuple[list[float], int]:
    """Microseconds of casbin's `enforce`, and how many of its answers differ from ours."""
    times, differing, until = [], 0, time.monotonic() + ENFORCED_SECONDS
    for principal, action, resource in questions:
        began = time.perf_counter_ns()
        allowed = plain.enforce(principal.id, principal.tenant, resource, action)
        times.append((time.perf_counter_ns() - began) / 1e3)
        decision = await subject.policy.decide(principal, action, resource)
        differing += allowed is not (decision.verdict is Verdict.ALLOW)
        if time.monotonic() > until and len(times) >= 10:
            break
    return times, differing


async def changed(subject: Subject, questions: Sequence[Question]) -> tuple[list[float], list[float], int]:
    """Milliseconds of a change, microseconds of the decision after it, and how many decisions did not obey."""
    changes, nexts, disobeyed = [], [], 0
    for principal, action, _ in questions[:CHANGES]:
        line = Line("allow", principal.id, principal.tenant, action, "tool:new")
        for change, verdict in ((subject.add, Verdict.ALLOW), (subject.remove, Verdict.DENY)):
            began = time.perf_counter_ns()
            await change(line)
            done = time.perf_counter_ns()
            decision = await subject.policy.decide(principal, action, "tool:new")
            nexts.append((time.perf_counter_ns() - done) / 1e3)
            changes.append((done - began) / 1e6)
            disobeyed += decision.verdict is not verdict
    return changes, nexts, disobeyed


def spread(name: str, times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        f"{name}_p50": round(statistics.median(ordered), 2),
        f"{name}_p95": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
    }


def say(**figures: object) -> None:
    print(json.dumps(figures), flush=True)


async def measure(size: int, folder: Path) -> list[str]:
    """Print a line for each figure of one size; return what fell short."""
    scene, path = Scene.of(size), folder / f"policy-{size}.csv"
    scene.write(path)
    plain, short = enforcer(path), []
    for subject in (ours(scene), casbins(path)):
        about: dict[str, object] = {"policy": subject.name, "rules": size, "principals": PRINCIPALS}
        await forget(subject)
        first = await decisions(subject, scene.questions)
        warm = await decisions(subject, scene.questions)
        enforced, differing = await compared(subject, plain, scene.questions)
        ratio = statistics.median(enforced) / statistics.median(warm)
        times = {**spread("warm_us", warm), **spread("first_us", first), **spread("enforce_us", enforced)}
        say(figure="decide", **about, **times, ratio=round(ratio), compared=len(enforced), differing=differing)
        await forget(subject)
        first = await grants(subject, scene.questions)
        warm_grants = await grants(subject, scene.questions)
        say(figure="grants", **about, **spread("warm_us", warm_grants), **spread("first_us", first))
        changes, nexts, disobeyed = await changed(subject, scene.questions)
        times = {**spread("change_ms", changes), **spread("next_decision_us", nexts)}
        say(figure="change", **about, **times, disobeyed=disobeyed)
        short += [f"{subject.name} at {size}: {differing} answers differ from casbin's"] if differing else []
        short += [f"{subject.name} at {size}: {disobeyed} changes were not obeyed"] if disobeyed else []
        p95 = spread("us", warm)["us_p95"]
        if size == max(SIZES) and p95 > TARGET_US:
            short.append(f"{subject.name} at {size}: decide takes {p95} us (p95), not {TARGET_US}")
    return short


def main() -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="the target is held at the largest")
    sizes = parser.parse_args().sizes
    short: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            short += asyncio.run(measure(size, Path(folder)))
    met = not short and max(SIZES) in sizes
    say(verdict="met" if met else "short", target_us=TARGET_US, short=short)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
