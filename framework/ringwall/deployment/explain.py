"""Why a run did what it did: for its answer and each of its actions, what led to it, and why that was allowed.

Made from the run's events as one reader may receive them, and from nothing else: what is withheld from the reader is
counted, not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ringwall.deployment.journal import Event
from ringwall.deployment.runlog import event_body, event_label
from ringwall.deployment.sealing import ERASED
from ringwall.errors import InvalidInput
from ringwall.interface.conditions import when_from_json
from ringwall.label import Label, LabelJson
from ringwall.principal import PUBLIC
from ringwall.schema import dumps

_ENDS: Final = {
    "run.finished": "answer",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
    "run.waiting": "waiting",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that the run was shown or that left it: a passage, a memory, a profile, a result, a disclosure.

    `name` is short (`D1`), for outcomes to point at; `why` says why it was allowed.
    """

    name: str
    what: str
    why: str
    seq: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """An action, or how the run ended.

    `why` is what allowed or refused it, in the order it happened. `sources` are all that could have shaped it;
    `rests_on` names what had been seen before it was decided on.
    """

    kind: str
    what: str
    why: tuple[str, ...]
    sources: tuple[str, ...]
    rests_on: tuple[str, ...]
    seq: int


@dataclass(frozen=True, slots=True)
class Guarded:
    """What one guard did where something passed: `at` is the crossing, `receiver` who was to get it.

    `did` is `passed`, `rewrote`, `refused` or `failed`; `found` is how often it found which kind of thing, never what.
    """

    guard: str
    did: str
    at: str
    receiver: str
    found: Mapping[str, int]
    texts: int
    seq: int

    @property
    def mattered(self) -> bool:
        """Whether it found something, or did."""
        return bool(self.found) or self.did != "passed"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one reader may know of why a run did what it did.

    `withheld` events are not told, and `erased` ones can be told to nobody any more. `guarded` is in the order in which
    things passed, and of each in the order of the guards.
    """

    run: str
    asked: str
    why: str
    seen: tuple[Seen, ...]
    outcomes: tuple[Outcome, ...]
    withheld: int
    erased: int = 0
    guarded: tuple[Guarded, ...] = ()


def explain(events: Sequence[Event]) -> Explanation:
    """Explain a run from its events; those with an empty body are withheld. Raises `InvalidInput` for no run's."""
    if not events or events[0].kind not in ("run.started", ""):
        raise InvalidInput("these are not the events of a run", expected="events from `run.started` on")
    erased = sum(event.body == ERASED for event in events)
    told = [(event, event_body(event)) for event in events if event.body not in ("", ERASED)]
    try:
        return _Telling(told).explanation(events[0].run, withheld=len(events) - len(told) - erased, erased=erased)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"an event of run {events[0].run!r} is not as this version writes it",
            hint="explain it with the version that wrote it",
        ) from error


_Told = Sequence[tuple[Event, Mapping[str, Any]]]


class _Telling:
    """Reads the events once, in order, and notes what was seen and what came of it."""

    def __init__(self, told: _Told) -> None:
        self._told = told
        first = told[0][1] if told and told[0][0].kind == "run.started" else {}
        self._first = first
        self._asker = first.get("principal", {}).get("id", "whoever asked")
        self._grants = frozenset(first.get("grants", ()))
        self._passages, self._memories = _readers(told)
        self._seen: dict[tuple[str, str], Seen] = {}
        self._counts: dict[str, int] = {}
        self._calls: dict[str, Outcome] = {}
        self._ends: list[Outcome] = []
        self._skipped: list[Outcome] = []
        self._whens: dict[str, str] = {}
        self._guarded: list[Guarded] = []
        self._proposed: dict[tuple[str, str], Event] = {}
        self._answer, self._cited = _answer(told)
        self._planned = [body for event, body in told if event.kind == "plan.fixed"]

    def explanation(self, run: str, *, withheld: int, erased: int) -> Explanation:
        for event, body in self._told:
            self._read(event, body)
        outcomes = sorted((*self._calls.values(), *self._skipped, *self._ends), key=lambda outcome: outcome.seq)
        asked, why = self._question()
        seen, guarded = tuple(self._seen.values()), tuple(self._guarded)
        return Explanation(run, asked, why, seen, tuple(outcomes), withheld, erased, guarded)

    def _question(self) -> tuple[str, str]:
        if not self._first:
            return "", ""
        why = f"the policy let {self._asker} ask app:{self._first['app']}"
        if self._first.get("intent") is not None:
            why += f"; the user's own action named: {', '.join(self._first['intent']) or 'no tool'}"
        for body in self._planned:
            tools = dict.fromkeys(call["tool"] for call in body["plan"]["calls"])
            why += f"; before anything was read, the plan names: {', '.join(tools) or 'no tool'}"
        return f"{self._asker}: {self._first['question']}", why

    def _read(self, event: Event, body: Mapping[str, Any]) -> None:
        match event.kind:
            case "data.searched" | "data.read":
                for id_ in body["found"]:
                    self._see("D", id_, f"passage {id_}", self._admitted(self._passages.get(id_)), event)
            case "memory.recalled":
                for id_ in body["ids"]:
                    why = f"{self._asker}'s own; {self._admitted(self._memories.get(id_))}"
                    self._see("M", id_, f"memory {id_}", why, event)
            case "turn.changed" if body["changed"].get("profile"):
                owner = body["changed"]["profile"]["owner"]
                self._see("P", "profile", f"profile of {owner}", "its own", event)
            case "model.replied":
                self._replied(event, body)
            case "guard.ran":
                self._guarded += _guarded(event, body)
            case "flow.allowed" | "flow.denied":
                self._flowed(event, body["receiver"])
            case "flow.declassified":
                receiver, readers = body["receiver"], " or ".join(body["readers"])
                why = f"what is for {readers} was let go by {body['rule']}: {body['reason']}"
                self._see("F", f"{receiver} {event.seq}", f"told to {receiver}", why, event)
            case "plan.read":
                why = f"by a model that could do nothing else; {self._admits(Label.from_json(body['label']))}"
                self._see("R", str(event.seq), f"reading: {dumps(body['value'])}", why, event)
            case "plan.skipped":
                what = " ".join((body["tool"], *body["keys"]))
                sources = _sources(Label.from_json(body["label"]))
                self._skipped.append(Outcome("not made", what, (body["why"],), sources, self._before(event), event.seq))
            case "plan.called":
                self._whens[body["call"]] = self._when(body["key"])
            case kind if kind.startswith("call."):
                self._call(event, body)
            case "run.resumed":
                self._ends.clear()  # it did not end there
            case kind if kind in _ENDS:
                self._ended(event, body)

    def _replied(self, event: Event, body: Mapping[str, Any]) -> None:
        for tool, arguments in body["calls"]:
            self._proposed[tool, arguments] = event

    def _flowed(self, event: Event, receiver: str) -> None:
        if event.kind == "flow.allowed":
            why = "it held a grant of every list of readers of what the run had seen"
            self._see("F", f"{receiver} {event.seq}", f"sent to {receiver}", why, event)
        else:
            why = "it lacked a grant of a list of readers of what the run had seen"
            self._see("F", f"{receiver} {event.seq}", f"kept from {receiver}", why, event)

    def _call(self, event: Event, body: Mapping[str, Any]) -> None:
        id_ = body["call"]
        call = self._calls.get(id_) or self._begun(event, body)
        phase, told = event.kind.removeprefix("call."), ""
        match phase:
            case "asked":
                told = f"a person had to be asked by {body['rule']}: {body['reason']}"
                call = replace(call, sources=_sources(Label.from_json(body["label"])))
            case "approved" | "declined" | "declassified":
                told = f"{phase} by {body['by']}" + (f": {body['note']}" if body.get("note") else "")
                told += f"; lets stand: {body['standing']}" if body.get("standing") else ""
            case "expired":
                told = "nobody answered in time"
            case "previewed":
                return
            case "started":
                again = call.why and call.why[-1].startswith("approved")
                told = "started, as approved" if again else f"allowed by {body['rule']}: {body['reason']}"
            case "refused":
                told = f"refused by {body['rule']}: {body['text']}"
            case "in_doubt":
                told = f"in doubt: {body['reason']}"
            case "finished":
                told = f"{body['status']}" + (f", says {body['by']}" if body.get("by") else "")
                label = Label.from_json(body["label"])
                self._see("T", id_, f"result of {call.what}", self._admits(label), event)
        self._calls[id_] = replace(call, why=(*call.why, told or phase))

    def _begun(self, event: Event, body: Mapping[str, Any]) -> Outcome:
        """A call rests on what had been seen when the model asked for it."""
        tool, arguments = body.get("tool", "a tool"), body.get("arguments", "")
        proposed = self._proposed.get((tool, arguments), event)
        sources = _sources(event_label(proposed))
        why = (when,) if (when := self._whens.get(body["call"])) else ()
        return Outcome("action", f"{tool} {arguments}".strip(), why, sources, self._before(proposed), event.seq)

    def _when(self, key: str) -> str:
        """What the plan says of when the call is made that has this key; the keys of several end with a number."""
        calls = {call["name"]: call for body in self._planned for call in body["plan"]["calls"]}
        call = calls.get(key) or calls.get(key.rpartition(".")[0], {})
        return f"the plan makes it when {when_from_json(call['when'])}, and that holds" if "when" in call else ""

    def _ended(self, event: Event, body: Mapping[str, Any]) -> None:
        label, kind = event_label(event), _ENDS[event.kind]
        what, why = str(body.get("what", "")), []
        if kind == "answer":
            what = self._answer
            why = [f"{body['receiver']} may receive it: {self._admits(label)}"]
            why += [f"cites {', '.join(self._cited)}"] if self._cited else []
        if kind == "waiting":
            what = "for an answer about " + ", ".join(self._calls[c].what for c in body["calls"] if c in self._calls)
        self._ends.append(Outcome(kind, what, tuple(why), _sources(label), self._before(event), event.seq))

    def _see(self, letter: str, id_: str, what: str, why: str, event: Event) -> None:
        if (letter, id_) not in self._seen:
            number = self._counts[letter] = self._counts.get(letter, 0) + 1
            self._seen[letter, id_] = Seen(f"{letter}{number}", what, why, event.seq)

    def _before(self, event: Event) -> tuple[str, ...]:
        return tuple(s.name for s in self._seen.values() if s.seq < event.seq and not s.name.startswith("F"))

    def _admitted(self, label: Label | None) -> str:
        return self._admits(label) if label else f"among what {self._asker} could read at that moment"

    def _admits(self, label: Label) -> str:
        """Which of the reader's grants open each list of readers."""
        if not label.secrecy:
            return "nobody restricted it"
        return "; ".join(sorted(self._opens(acl) for acl in label.secrecy))

    def _opens(self, acl: Iterable[str]) -> str:
        readers = sorted(acl)
        if PUBLIC in readers:
            return "public"
        held = sorted(self._grants.intersection(readers))
        holds = f"{self._asker} held {', '.join(held)}" if held else f"{self._asker} got one of these later"
        return f"for {' or '.join(readers)}: {holds}"


def _guarded(event: Event, body: Mapping[str, Any]) -> list[Guarded]:
    at, receiver = str(body["at"]), str(body["receiver"])
    return [
        Guarded(each["guard"], each["did"], at, receiver, each["found"], each["texts"], event.seq)
        for each in body["guards"]
    ]


def _readers(told: _Told) -> tuple[dict[str, Label], dict[str, Label]]:
    """The labels of passages and memories, as the turn tells them."""
    passages: dict[str, Label] = {}
    memories: dict[str, Label] = {}
    for event, body in told:
        changed = body["changed"] if event.kind == "turn.changed" else {}
        for match in changed.get("matches") or ():
            label: LabelJson = {"secrecy": [match["readers"]], "influence": []}
            passages[match["id"]] = Label.from_json(label)
        for memory in changed.get("memories") or ():
            memories[memory["id"]] = Label.from_json(memory["label"])
    return passages, memories


def _answer(told: _Told) -> tuple[str, list[str]]:
    """The answer and what it points at, which the turn tells after the run has finished."""
    answer, cited = "", []
    for event, body in told:
        changed = body["changed"] if event.kind == "turn.changed" else {}
        answer = changed.get("answer", answer)
        if "citations" in changed:
            cited = [f"{c[0]} {c[1]}-{c[2]}" for c in changed["citations"] if c[3]]
    return answer, cited


def _sources(label: Label) -> tuple[str, ...]:
    return tuple(sorted(label.influence))


__all__ = ["Explanation", "Guarded", "Outcome", "Seen", "explain"]
