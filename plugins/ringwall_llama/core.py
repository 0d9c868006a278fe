"""What the engine's thread alone touches: the context, and the jobs in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import llama_cpp
import numpy as np

from ringwall.errors import LimitReached, ProviderUnavailable, RingwallError
from ringwall_llama.batch import Batch
from ringwall_llama.cells import Cells, Domain, Held, Keys, common, keyed
from ringwall_llama.context import BATCH, KEPT, Room, new_context
from ringwall_llama.job import GUESSABLE, Job
from ringwall_llama.loaded import Loaded
from ringwall_llama.lookup import Lookup, Step
from ringwall_llama.sampling import logits_of
from ringwall_llama.shapes import Shapes

_BESIDE: Final = 128
"""Rows of prompts that are read beside replies that are being written: these must not be held up for long."""

_WORTH_WAITING: Final = 32
"""Tokens in common for which a request waits until another has read them."""

_SPARE: Final = 64
"""Cells left free for what calls open with."""

_ABORTED: Final = 2


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens since the model was loaded.

    `reused` prompt tokens were not computed again; `guessed` were put forward by prompt lookup, `right` of them kept.
    """

    prompt: int = 0
    reused: int = 0
    completion: int = 0
    guessed: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one job in a batch: `first` is the first one that was asked for, with `guesses` after it."""

    job: Job
    first: int
    guesses: tuple[int, ...] = ()
    is_last: bool = True


class Core:
    """The context and the jobs in it. One step: `lay_out`, `compute`, `take_in`."""

    def __init__(self, model: Loaded, room: Room, shapes: Shapes, abort: Any, spent: Spent) -> None:
        self._model, self._room, self._shapes = model, room, shapes
        self._context: Any = new_context(model, room, abort)
        if not self._context:
            raise ProviderUnavailable("llama.cpp could not make a context", hint="the log `ringwall.llama` says why")
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._batch = Batch(BATCH)
        self._turn = 0
        self._domain: Domain = ("", "")
        self._cost = Step()
        self.cells = Cells(room.cells, room.slots + KEPT)
        self.active: list[Job] = []
        self.spent = spent

    def close(self) -> None:
        if self._context:
            llama_cpp.llama_free(self._context)
            self._context = None

    # ---- coming and going

    def has_room_for(self, job: Job) -> bool:
        """Whether the job can be computed to its end beside those that are being computed."""
        if len(self.active) >= self._room.slots:
            return False
        source, there = self._source(job)
        needed = job.may_take + _SPARE - max(there, self._leader(job)[1])
        for held in self.cells.kept:
            if self._available >= needed:
                break
            if held is not source:
                self._drop(held)
        return self._available >= needed or not self.active

    @property
    def _available(self) -> int:
        return self.cells.free - sum(job.may_take for job in self.active)

    def enter(self, job: Job) -> None:
        """Let a job in: it goes on from what is there of its prompt, or waits for who is reading that."""
        self.active.append(job)
        leader, shared = self._leader(job)
        _, there = self._source(job)
        if leader is not None and shared >= there + _WORTH_WAITING:
            job.leader, job.shared = leader, shared
        else:
            self._seat(job)

    def leave(self, job: Job) -> None:
        """Let a job go that nobody waits for, or that took too long."""
        if not job.is_stopped:
            job.listener.tell(LimitReached("the deadline passed before the reply was whole", hint="allow more time"))
        self._forget(job)

    def sweep(self) -> None:
        """Let go of what is over, and seat those whose leader has read what they share."""
        for job in [job for job in self.active if job.is_over()]:
            self.leave(job)
        for job in self.active:
            leader = job.leader
            if leader is not None and (leader not in self.active or _has_read(leader, job.shared)):
                job.leader, job.shared = None, 0
                self._seat(job)

    def _forget(self, job: Job) -> None:
        """Leave nothing of a job that did not come to its end."""
        if job.held is not None:
            self._drop(job.held)
            job.held = None
        if job in self.active:
            self.active.remove(job)
        job.close()

    def _finish(self, job: Job) -> None:
        """Keep the sequence for what begins like it, and tell that the reply is whole."""
        held = job.held
        assert held is not None
        held.is_busy = False
        if self._model.can_share:
            self.cells.touch(held)
            for shorter in self.cells.within(held):
                self._drop(shorter)
        else:
            self._drop(held)
        self.active.remove(job)
        job.end()
        job.close()

    def _source(self, job: Job) -> tuple[Held | None, int]:
        """The sequence to go on from, and how many tokens of it; the last token of a prompt is always read."""
        if not self._model.can_share:
            return None, 0
        held, shared = self.cells.nearest(job.keys[:-1], job.domain)
        return held, shared

    def _leader(self, job: Job) -> tuple[Job | None, int]:
        """Who is reading a prompt that begins most like this one's."""
        best, shared = None, 0
        if self._model.can_share:
            for other in self.active:
                if other is not job and other.leader is None and other.domain == job.domain and not other.is_talking:
                    length = common(other.keys, job.keys[:-1])
                    if length > shared:
                        best, shared = other, length
        return best, shared

    def _seat(self, job: Job) -> None:
        source, shared = self._source(job)
        held = self.cells.open(job.domain, source, shared)
        if held is None:
            self._drop(self.cells.kept[0])
            source, shared = self._source(job)
            held = self.cells.open(job.domain, source, shared)
        assert held is not None
        if source is not None:
            llama_cpp.llama_memory_seq_cp(self._memory, source.id, held.id, 0, shared)
        job.held, job.reused = held, shared
        self._count(prompt=job.prompt, reused=shared)

    def _drop(self, held: Held) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, held.id, -1, -1)
        self.cells.drop(held)

    # ---- one step

    def lay_out(self) -> list[Part]:
        """Fill the batch with what is to be computed next, for jobs of one domain."""
        self._batch.clear()
        ready = [job for job in self.active if job.held is not None]
        if not ready:
            return []
        domains = list(dict.fromkeys(job.domain for job in ready))
        self._turn += 1
        self._shape(domains[self._turn % len(domains)])
        ready = [job for job in ready if job.domain == self._domain]
        talking = [job for job in ready if job.is_talking]
        parts = [self._talk(job, len(talking)) for job in talking]
        return parts + self._read([job for job in ready if not job.is_talking], beside=bool(talking))

    def _talk(self, job: Job, rows: int) -> Part:
        """The last token that was said, and guesses at what comes after it."""
        held = job.held
        assert held is not None
        guesses = self._guesses(job, rows)
        place = len(held)
        keys = job.unread
        if guesses:
            keys = _followed(keys, guesses, job.secrecy)
        first = self._batch.add(keys, held.id, place, asked=1 + len(guesses))
        self.cells.grow(held, keys)
        return Part(job, first, guesses)

    def _guesses(self, job: Job, rows: int) -> tuple[int, ...]:
        if (
            not job.is_drafting
            or job.reads_last_alone
            or job.script is None
            or not isinstance(job.script.reader, GUESSABLE)
        ):
            return ()
        if job.lookup is None:
            job.lookup = Lookup([int(key) & 0xFFFFFFFF for key in job.keys])
        left = job.sampling.max_tokens - job.made - 1
        room = (self._batch.room - rows - _BESIDE) // rows
        return tuple(job.lookup.guess(self._cost, rows, max(0, min(left, room))))

    def _read(self, jobs: list[Job], *, beside: bool) -> list[Part]:
        """Pieces of prompts, of who came first as much as there is room for."""
        room = min(self._batch.room - self._batch.rows, _BESIDE if beside else BATCH)
        parts: list[Part] = []
        for job in jobs:
            held, unread = job.held, job.unread
            piece = unread[: min(room, len(unread) - 1 if job.reads_last_alone and len(unread) > 1 else room)]
            if not len(piece):
                break
            assert held is not None
            is_last = len(piece) == len(unread)
            first = self._batch.add(piece, held.id, len(held), asked=int(is_last))
            self.cells.grow(held, piece)
            parts.append(Part(job, first + len(piece) - 1, is_last=is_last))
            room -= len(piece)
        return parts

    def compute(self) -> bool:
        """Have llama.cpp compute the batch; False if it was broken off, since nobody waits for it any more."""
        began = time.perf_counter()
        code = llama_cpp.llama_decode(self._context, self._batch.whole())
        if code == _ABORTED:
            return False
        if code:
            raise ProviderUnavailable(f"llama.cpp could not compute a batch (code {code})", hint="ask again")
        self._cost.took(self._batch.rows, time.perf_counter() - began)
        return True

    def take_in(self, parts: list[Part]) -> None:
        """Choose the next tokens, and tell them."""
        for part in parts:
            if part.is_last and not part.job.is_stopped:
                try:
                    self._go_on(part)
                except RingwallError as error:
                    part.job.listener.tell(error)
                    self._forget(part.job)

    def _go_on(self, part: Part) -> None:
        job, row = part.job, part.first
        if job.sampler is None and job.begin(self._model, logits_of(self._context, row, self._model)):
            return
        assert job.sampler is not None
        right = 0
        for place in range(len(part.guesses) + 1):
            token = job.sampler.next(self._context, row + place)
            self._count(completion=0 if self._model.ends(token) else 1)
            if job.say(token, self._model, self._context, row + place):
                self._keep(job, part, right)
                self._finish(job)
                return
            if place == len(part.guesses) or token != part.guesses[place]:
                break
            right += 1
        self._keep(job, part, right)

    def _keep(self, job: Job, part: Part, right: int) -> None:
        """Of the guesses keep those that were right."""
        if not part.guesses:
            return
        assert job.held is not None
        assert job.lookup is not None
        job.lookup.learn(len(part.guesses), right)
        self._count(guessed=len(part.guesses), right=right)
        length = len(job.held) - len(part.guesses) + right
        if length < len(job.held):
            llama_cpp.llama_memory_seq_rm(self._memory, job.held.id, length, -1)
            self.cells.cut(job.held, length)

    def _shape(self, domain: Domain) -> None:
        if domain != self._domain:
            self._shapes.put_on(self._context, domain)
            self._domain = domain

    def _count(
        self, *, prompt: int = 0, reused: int = 0, completion: int = 0, guessed: int = 0, right: int = 0
    ) -> None:
        s = self.spent
        self.spent = Spent(
            s.prompt + prompt, s.reused + reused, s.completion + completion, s.guessed + guessed, s.right + right
        )


def _has_read(job: Job, length: int) -> bool:
    return job.held is not None and len(job.held) >= length


def _followed(keys: Keys, guesses: Sequence[int], secrecy: int) -> Keys:
    return np.concatenate([keys, keyed(guesses, secrecy)])
