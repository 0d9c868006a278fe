"""What `ringwall audit` does: sign, verify, export and explain a journal."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from pydantic_core import to_json
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ringwall import plugins
from ringwall.deployment.base import Policy
from ringwall.deployment.checkpoints import Checkpoint, Verifier, checkpoint, read_checkpoints, stored_checkpoints
from ringwall.deployment.checkpoints import verify as verify_evidence
from ringwall.deployment.erasure import Erasure, Forget, erase, retain
from ringwall.deployment.explain import Explanation, Guarded, Outcome, Seen, explain
from ringwall.deployment.export import Export, ExportedJournal
from ringwall.deployment.journal import Event, Journal, check_run
from ringwall.deployment.reading import readable_events
from ringwall.deployment.rules import Rules
from ringwall.deployment.sealing import SealedJournal, Sealer, is_alias, open_events
from ringwall.errors import ConfigurationError, InvalidInput
from ringwall.places import evidence, opened
from ringwall.principal import Principal


def make_key(path: Path) -> None:
    """Write a new secret key, and its public half beside it."""
    key = plugins.find("deployment", "audit").generate()
    key.save(path)
    Console().print(f"{path} signs, {path}.pub verifies: key {key.verifier.id}", markup=False, soft_wrap=True)


async def make_checkpoints(journal: str, key: Path, keep: Path | None, older: Sequence[Path], every: float) -> None:
    """Make a checkpoint, and append to `keep` those that it lacks; again and again if `every` says after how long."""
    signer = plugins.find("deployment", "audit").load(key)
    keys = [signer.verifier, *public_keys(older)]
    async with opened(journal) as opened_journal:
        while True:
            made = await checkpoint(opened_journal, signer, older_keys=keys[1:])
            _say(_told(made) if made else "nothing came since the last checkpoint")
            if keep is not None:
                _append_to(keep, await stored_checkpoints(opened_journal, keys), keys)
            if not every:
                return
            await asyncio.sleep(every)


async def verify(source: str, keys: Sequence[Path], kept: Path | None) -> None:
    """Verify a journal or an exported file, and say what was found good. Raises `ChainBroken`."""
    if kept is not None and not keys:
        raise InvalidInput("kept checkpoints without a key", hint="name the public half with --key")
    verifiers = public_keys(keys)
    checkpoints = [] if kept is None else read_checkpoints(_lines(kept), verifiers)
    async with evidence(source) as held:
        found = await verify_evidence(held, verifiers, checkpoints)
    _say(f"{found.events} events, every chain verified")
    if found.newest is not None:
        _say(f"{_told(found.newest)}; {found.events - found.covered} came later")
    else:
        _say("no checkpoints asked for: whether the end was cut off cannot be seen; name a key with --key")


class ExportForm(StrEnum):
    """How a journal is written out."""

    JSONL = "jsonl"
    OTEL = "otel"


async def export(journal: str, form: ExportForm) -> None:
    """Write a journal to standard output."""
    async with opened(journal) as opened_journal:
        if form is ExportForm.OTEL:
            writing = plugins.find("deployment", "otel-export")(sys.stdout)
        else:
            writing = Export(sys.stdout.buffer)
        await opened_journal.inspect(writing)
        writing.finish()


async def explained(
    source: str, run: str, as_: Principal, policy: Path | None, keys: Path | None = None
) -> Explanation:
    """Explain a run to `as_`. Raises `UnknownRun`, `ChainBroken`."""
    async with evidence(source) as held:
        owner, events = await _found(held, run)
    check_run(run, events)
    if is_alias(owner):
        owner, events = await _unsealed(owner, events, keys)
    rules = policy_in(policy)
    try:
        return explain(await readable_events(events, owner, rules, as_))
    finally:
        await rules.close()


async def _unsealed(owner: str, events: list[Event], keys: Path | None) -> tuple[str, list[Event]]:
    if keys is None:
        raise InvalidInput("this run is sealed", hint="name the file of the keys with --keys")
    async with sealer_of(keys) as sealer:
        subjects = await sealer.subjects([owner])
        return subjects.get(owner, owner), await open_events(sealer, owner, events)


async def erase_subject(
    journal: str, subject: Principal, keys: Path, by: str, profiles: str | None, memories: str | None
) -> None:
    """Erase what is kept of somebody in a journal, and in the databases of profiles and memories that are given."""
    async with sealed(journal, keys) as sealed_journal, AsyncExitStack() as stack:
        forget: list[Forget] = []
        for name, where in (("sql-profiles", profiles), ("sql-memories", memories)):
            if where is not None:
                store = plugins.find("personalization", name)(where)
                stack.push_async_callback(store.close)
                forget.append(partial(store.forget, subject))
        _say_erased(await erase(sealed_journal, subject.own_grant, by=by, forget=forget))


async def retain_days(journal: str, keys: Path, days: float, by: str) -> None:
    """Erase the runs of a journal that are older than this."""
    async with sealed(journal, keys) as sealed_journal:
        _say_erased(await retain(sealed_journal, days, by=by))


def _say_erased(done: Erasure) -> None:
    _say(f"{done.runs} runs erased, {done.closed} of them open until now; the journal tells of it in {done.run}")
    if done.unsealed:
        _say(f"{done.unsealed} runs were written before the journal was sealed, and can still be read")


@asynccontextmanager
async def sealed(journal: str, keys: Path) -> AsyncIterator[SealedJournal]:
    """A sealed journal, with its keys in an SQLite file."""
    async with opened(journal) as inner, sealer_of(keys) as sealer:
        yield SealedJournal(inner, sealer)


@asynccontextmanager
async def sealer_of(keys: Path) -> AsyncIterator[Sealer]:
    """What seals with the keys in an SQLite file that is there already."""
    sealer: Sealer = plugins.find("deployment", "audit-sealer").at(_there(keys))
    try:
        yield sealer
    finally:
        await sealer.close()


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}", hint="name the one that the app uses")
    return path


def show(explanation: Explanation, *, as_json: bool) -> None:
    """Print an explanation as a tree, or as JSON."""
    if as_json:
        sys.stdout.write(to_json(explanation, indent=2).decode() + "\n")
    else:
        Console().print(_tree(explanation))


def public_keys(paths: Sequence[Path]) -> list[Verifier]:
    """The public keys in these files."""
    return [plugins.find("deployment", "audit-public").load(path) for path in paths]


async def _found(held: Journal | ExportedJournal, run: str) -> tuple[str, list[Event]]:
    if isinstance(held, ExportedJournal):
        record, events = await held.find(run)
        return record.owner, events
    return (await held.record(run)).owner, await held.read(run)


def policy_in(path: Path | None) -> Policy:
    """The policy in a file; without one nobody holds more than itself, and nobody may audit."""
    if path is None:
        return Rules("")
    if path.suffix == ".csv":
        policy: Policy = plugins.find("deployment", "casbin").from_files(path)
        return policy
    return Rules("\n".join(_lines(path)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", expected="a text file in UTF-8") from error


def _append_to(path: Path, stored: Sequence[Checkpoint], keys: Sequence[Verifier]) -> None:
    """Append the checkpoints that come after those in the file. Raises `InvalidInput` if the file tells of others."""
    kept = read_checkpoints(_lines(path), keys) if path.exists() else []
    if kept and kept[-1:] != list(stored[kept[-1].number - 1 : kept[-1].number]):
        raise InvalidInput(
            f"{path} ends with another checkpoint than number {kept[-1].number} of the journal",
            hint="verify the journal with it before anything else: `ringwall audit verify --kept`",
        )
    new = stored[kept[-1].number if kept else 0 :]
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{each.text}\n" for each in new)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}", hint="name another file") from error


def _told(made: Checkpoint) -> str:
    at = datetime.fromtimestamp(made.at, UTC).isoformat(" ", "seconds")
    return f"checkpoint {made.number} of {at}, signed with key {made.key[:16]}"


def _say(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


# The tree


def _tree(explanation: Explanation) -> Tree:
    root = Tree(plain(f"run {explanation.run}", "bold"))
    if explanation.asked:
        root.add(plain(explanation.asked)).add(plain(explanation.why, "dim"))
    if explanation.seen:
        seen = root.add(plain("what it was shown, and whom it was shown to", "bold"))
        for each in explanation.seen:
            _add_seen(seen, each)
    if explanation.guarded:
        _add_guarded(root.add(plain("what guards did", "bold")), explanation.guarded)
    for outcome in explanation.outcomes:
        _add_outcome(root, outcome)
    if explanation.erased:
        root.add(
            plain(f"{explanation.erased} events were erased; when they happened and of which kind is left", "yellow")
        )
    if explanation.withheld:
        root.add(plain(f"{explanation.withheld} events are withheld: their labels do not admit you", "yellow"))
    return root


def _add_seen(tree: Tree, seen: Seen) -> None:
    tree.add(plain(f"{seen.name} {seen.what}")).add(plain(seen.why, "dim"))


def _add_outcome(tree: Tree, outcome: Outcome) -> None:
    branch = tree.add(plain(f"{outcome.kind}: {outcome.what}", "bold"))
    for why in outcome.why:
        branch.add(plain(why))
    branch.add(plain(f"could have been shaped by: {', '.join(outcome.sources) or 'nobody'}", "dim"))
    branch.add(plain(f"rests on: {', '.join(outcome.rests_on) or 'the question alone'}", "dim"))


_AT: Final = {
    "question": "the question",
    "prompt": "what {} was sent",
    "reply": "what {} replied",
    "arguments": "the arguments for {}",
    "result": "what {} returned",
    "answer": "the answer to {}",
}
_DID: Final = {
    "passed": "let {} pass",
    "rewrote": "rewrote {}",
    "refused": "refused {}",
    "failed": "failed on {}, of which nothing passed",
}


def _add_guarded(tree: Tree, guarded: Sequence[Guarded]) -> None:
    for each in guarded:
        if each.mattered:
            tree.add(plain(f"{each.guard} {_done(each)}")).add(plain(_counted(each), "dim"))
    quiet = Counter((each.guard, each.at) for each in guarded if not each.mattered)
    if quiet:
        told = ", ".join(f"{guard} at {at}" + (f" ({n} times)" if n > 1 else "") for (guard, at), n in quiet.items())
        tree.add(plain(f"nothing found: {told}", "dim"))


def _done(guarded: Guarded) -> str:
    what = _AT.get(guarded.at, guarded.at).format(guarded.receiver)
    return _DID.get(guarded.did, guarded.did + " {}").format(what)


def _counted(guarded: Guarded) -> str:
    return "found " + (", ".join(f"{count} {kind}" for kind, count in guarded.found.items()) or "nothing that it names")


def plain(text: str, style: str = "") -> Text:
    """A text as it is, on one line, whoever wrote it: no markup, nothing that steers a terminal."""
    return Text("".join(sign if sign.isprintable() else " " for sign in text), style=style, overflow="fold")


__all__ = [
    "ExportForm", "erase_subject", "evidence", "explained", "export", "make_checkpoints", "make_key", "opened", "plain",
    "policy_in", "public_keys", "retain_days", "show", "verify",
]  # fmt: skip
