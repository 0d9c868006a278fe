"""Every error that Ringwall raises on purpose: one tree, by whose move is next.

    RingwallError
    ├── InvalidInput                 the caller's: what was passed in cannot be used
    │   ├── DocumentWithoutReaders       nobody said who may read it
    │   ├── ContextOverflow              more tokens than the model's window holds
    │   ├── WorkerDied                   whoever worked on it died: killed, or out of memory
    │   ├── UnknownRun                   no such run, or none that this principal may see
    │   │   └── RunErased                    there was one, and what it held was erased
    │   ├── NotWaiting                   the run or call is not (any more) waiting for this answer
    │   └── Unavailable                  a value that a plan wants cannot be had
    │       ├── NotMade                      its call was not made: a condition of the plan does not hold
    │       └── Incomparable                 a condition of the plan compares values of different types
    ├── ConfigurationError           the deployer's: the app cannot be built like this
    │   ├── UnknownPlugin                no plugin of that name is installed
    │   ├── MissingDependency            a constructor asks for what no recipe makes
    │   ├── BadModelFile                 missing, truncated, changed or not a GGUF
    │   └── BadPolicy                    a policy file or rule that cannot be read
    ├── Denied                       the policy's no
    │   ├── FlowDenied                   this receiver may not receive this value
    │   │   └── GuardRefused                 a guard let the text not pass, or failed
    │   └── ActionDenied                 this action may not be caused by these sources
    ├── ProviderError                the model provider's
    │   ├── ProviderRefused              key, account or request refused; trying again will not help
    │   │   └── LacksAbility                 it has no means to do what the request asks
    │   ├── ProviderUnavailable          busy, down or too slow; trying again may help
    │   └── BadReply                     the reply breaks the protocol or stops in the middle
    ├── StepFailed                   a step of the pipeline raised something that is not in this tree
    ├── RunCancelled                 somebody cancelled this run while it went on
    ├── LimitReached                 a bound of the run: rounds, deadline, budget
    │   ├── BudgetReached                a hard budget has no room for the next thing
    │   └── RateReached                  too much in too short a time; trying again later will help
    ├── StoreError                   a document, memory or profile store, or a ledger, could not do it
    └── JournalError                 the journal's
        ├── JournalUnavailable           locked, read-only, full or gone
        ├── JournalConflict              another process went on with this run
        │   └── RunHeld                      another process carries this run on, and lives
        └── ChainBroken                  an event was changed, removed or put in another order

Each message says what happened, what was expected and the next move.
"""

from __future__ import annotations

import copyreg
from typing import NamedTuple


class RingwallError(Exception):
    """Base of all. `expected` and `hint` complete the message; all three are safe to show to the caller.

    `fault` names who can mend it: `caller`, `configuration`, `provider`, `policy`, `tool`, `limit`, `storage`.
    """

    fault = "ringwall"

    def __init__(self, what: str, *, expected: str = "", hint: str = "") -> None:
        self.what, self.expected, self.hint = what, expected, hint
        super().__init__(what)

    def __reduce__(self) -> tuple[object, ...]:
        # Not by calling the class, whose arguments are others: so that each can come back from another process.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        parts = [self.what]
        if self.expected:
            parts.append(f"expected: {self.expected}")
        if self.hint:
            parts.append(f"next: {self.hint}")
        return "; ".join(parts)


class InvalidInput(RingwallError):
    """What the caller passed in cannot be used."""

    fault = "caller"


class DocumentWithoutReaders(InvalidInput):
    """A document nobody may be assumed to read."""

    def __init__(self, document: str = "") -> None:
        super().__init__(
            f"document {document!r} has no readers" if document else "an ACL without grants",
            expected="at least one grant, as in `user:ana`, `role:staff` or `public`",
            hint="say who may read it: nothing is public by default",
        )


class ContextOverflow(InvalidInput):
    """The prompt holds more tokens than the model's context window leaves for it."""

    def __init__(self, tokens: int, window: int, *, reserved: int = 0) -> None:
        self.tokens, self.window, self.reserved = tokens, window, reserved
        self.excess = tokens + reserved - window
        super().__init__(
            f"the prompt is {self.excess} tokens too long: {tokens} tokens and {reserved} kept for the answer "
            f"do not fit a window of {window}",
            hint="shorten the question, retrieve fewer passages, or choose a model with a larger window",
        )


class WorkerDied(InvalidInput):
    """What was given to a worker let it die, and the next one too."""

    def __init__(self) -> None:
        super().__init__(
            "each worker that tried died",
            hint="look whether it needs more memory than a worker has; leave it out, or do it without workers",
        )


class UnknownRun(InvalidInput):
    """No such run, or none that the asking principal may see: the two are told apart to nobody."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"no run {run_id!r} that you may see", hint="list the waiting ones with `app.waiting(as_=...)`"
        )


class RunErased(UnknownRun):
    """What the run held was erased, for whoever asked it or because it was too old; nothing goes on with it."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.what = f"run {run!r} was erased"
        self.hint = "ask again; when it was erased, and how much, is in the journal's runs `erasure:...`"
        self.args = (self.what,)


class NotWaiting(InvalidInput):
    """An answer to a question that is not open: already answered, used up, or never asked."""


class Unavailable(InvalidInput):
    """A value that a plan wants cannot be had: its call returned nothing, or it names no record or several."""


class NotMade(Unavailable):
    """A call of a plan is not made: its condition does not hold, or it takes from a call that was not made."""


class Incomparable(Unavailable):
    """A condition of a plan compares values of different types, or such as have no order."""

    def __init__(self, comparison: str) -> None:
        super().__init__(f"a condition compares {comparison}")


class ConfigurationError(RingwallError):
    """The app cannot be built like this."""

    fault = "configuration"


class UnknownPlugin(ConfigurationError):
    """No installed distribution offers a plugin of that name."""


class MissingDependency(ConfigurationError):
    """A constructor asks for something that no recipe makes; the message shows the path to it."""


class BadModelFile(ConfigurationError):
    """A model file that is missing, truncated, of another format, or not the one that was pinned."""


class BadPolicy(ConfigurationError):
    """A policy that cannot be read; the message names file, line and what was expected there."""


class Denied(RingwallError):
    """The policy's no. `rule` is the id of the rule that decided, or `default`."""

    fault = "policy"

    def __init__(self, what: str, *, rule: str = "default", hint: str = "") -> None:
        self.rule = rule
        super().__init__(what, hint=hint)


class FlowDenied(Denied):
    """The receiver lacks a grant that the value's label asks for. The message never says which."""


class GuardRefused(FlowDenied):
    """A guard's no, or a guard that failed: either way nothing passed. The message never holds the text."""

    def __init__(self, guard: str, crossing: str, *, failed: bool = False) -> None:
        self.guard, self.crossing, self.failed = guard, crossing, failed
        why = "failed, so nothing passed" if failed else "lets it not pass"
        super().__init__(f"the guard {guard!r} on the {crossing} {why}", rule=f"guard:{guard}")


class ActionDenied(Denied):
    """One of the sources that shaped this call may not cause this action."""


class ProviderError(RingwallError):
    """The model provider's fault. `provider` is its name."""

    fault = "provider"

    def __init__(self, what: str, *, provider: str = "", expected: str = "", hint: str = "") -> None:
        self.provider = provider
        super().__init__(what, expected=expected, hint=hint)


class ProviderRefused(ProviderError):
    """The request, key or account was refused: trying again will not help."""


class LacksAbility(ProviderRefused):
    """The provider has no means to do what the request asks; nothing was sent to it."""


class ProviderUnavailable(ProviderError):
    """Busy, down or too slow: trying again may help. `retry_after` in seconds, if the provider said."""

    def __init__(self, what: str, *, provider: str = "", retry_after: float | None = None, hint: str = "") -> None:
        self.retry_after = retry_after
        super().__init__(what, provider=provider, hint=hint or "try again later or add a second provider")


class BadReply(ProviderError):
    """A reply that breaks the protocol, or a stream that stopped in the middle."""


class StepFailed(RingwallError):
    """A step of the pipeline raised something that is not in this tree."""

    fault = "configuration"


class RunCancelled(RingwallError):
    """Somebody cancelled this run while it went on: nothing more was begun, and what could be undone is."""

    fault = "caller"

    def __init__(self, run: str) -> None:
        super().__init__(f"run {run!r} was cancelled", hint="`app.events(run, as_=...)` say by whom, and what remains")


class Done(NamedTuple):
    """A tool call that a run had brought to an end, and its status: `done`, `failed`, `refused`."""

    tool: str
    status: str


class LimitReached(RingwallError):
    """A bound of the run was reached: rounds, deadline or budget. What was done so far is in the journal.

    `run` is the run, to be resumed once there is room, and `done` what its tools had done, as far as whoever asked
    may be shown it; both are empty where no run was stopped.
    """

    fault = "limit"
    run: str = ""
    done: tuple[Done, ...] = ()


class BudgetReached(LimitReached):
    """A hard budget has no room for what the next thing may take at most; `limit` is in its unit.

    What was spent is not told: others may have spent it.
    """

    def __init__(self, budget: str, *, limit: float, asked: float) -> None:
        self.budget, self.limit = budget, limit
        super().__init__(
            f"the budget {budget!r} is used up: {asked:g} more could pass {limit:g}",
            hint="resume the run when it has room again, or ask for less at once",
        )


class RateReached(LimitReached):
    """Too much in too short a time: try again after `retry_after` seconds. `budget` names the rates that were asked."""

    def __init__(self, budget: str, retry_after: float) -> None:
        self.budget, self.retry_after = budget, retry_after
        super().__init__(
            f"the rate {budget!r} is used up", hint=f"resume the run in {max(1, round(retry_after))} seconds"
        )


class StoreError(RingwallError):
    """A store of documents, memories or profiles, or a ledger, could not do what it was asked."""

    fault = "storage"


class JournalError(RingwallError):
    """The journal could not do what it was asked; nothing it had acknowledged is lost."""

    fault = "storage"


class JournalUnavailable(JournalError):
    """The journal's database is locked, read-only, full or gone: the run stops before its next effect."""


class JournalConflict(JournalError):
    """Another process went on with this run; this one must not."""


class RunHeld(JournalConflict):
    """Another process carries this run on, and lives."""

    def __init__(self, run: str) -> None:
        super().__init__(f"run {run!r} is carried on by another process", hint="wait for it, or cancel the run")


class ChainBroken(JournalError):
    """Verification found the first event that was changed, removed or reordered: number `seq` of `run`, where known."""

    def __init__(self, what: str, *, run: str = "", seq: int | None = None, expected: str = "", hint: str = "") -> None:
        self.run, self.seq = run, seq
        super().__init__(what, expected=expected, hint=hint)
