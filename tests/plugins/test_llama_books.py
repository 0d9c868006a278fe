"""The books of the engine: cells are counted as llama.cpp holds them, and nobody waits behind all of another's."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from ringwall_llama.cells import Cells, Held, Secrecies, common, keyed
from ringwall_llama.lookup import Lookup, Step
from ringwall_llama.waiting import Waiting

PLAIN = ("", "")
_tokens = st.lists(st.integers(0, 3), max_size=8)


class Pool(RuleBasedStateMachine):
    """Cells beside the plainest count of them: each cell with the sequences that hold it."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.cells = Cells(200, 8)
        self.holders: dict[int, list[int]] = {}
        self.names = iter(range(10_000))
        self.open: dict[int, list[int]] = {}

    @precondition(lambda self: len(self.open) < 8)
    @rule(target=sequences, tokens=_tokens)
    def begin(self, tokens: list[int]) -> Held:
        keys = keyed(tokens, 0)
        like, length = self.cells.nearest(keys, PLAIN)
        held = self.cells.open(PLAIN, like, length)
        assert held is not None
        self.open[held.id] = list(self.open[like.id][:length]) if like is not None else []
        assert held.keys.tolist() == tokens[:length]
        self.cells.grow(held, keys[length:])
        self.open[held.id] += [next(self.names) for _ in tokens[length:]]
        return held

    @rule(held=sequences, tokens=_tokens)
    def grow(self, held: Held, tokens: list[int]) -> None:
        if held.id in self.open and len(tokens) <= self.cells.free:
            self.cells.grow(held, keyed(tokens, 0))
            self.open[held.id] += [next(self.names) for _ in tokens]

    @rule(held=sequences, length=st.integers(0, 8))
    def cut(self, held: Held, length: int) -> None:
        self.cells.cut(held, length)
        del self.open[held.id][length:]

    @rule(held=consumes(sequences))
    def drop(self, held: Held) -> None:
        self.cells.drop(held)
        del self.open[held.id]

    @invariant()
    def as_many_cells_are_free_as_nobody_holds(self) -> None:
        used = {cell for cells in self.open.values() for cell in cells}
        assert self.cells.free == self.cells.size - len(used)


TestPool = Pool.TestCase


@given(_tokens, _tokens)
def test_the_common_prefix_is_the_longest_there_is(one: list[int], other: list[int]) -> None:
    length = common(keyed(one, 0), keyed(other, 0))
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


@given(_tokens.filter(bool), st.integers(1, 5), st.integers(1, 5))
def test_equal_tokens_of_other_readers_have_nothing_in_common(tokens: list[int], one: int, other: int) -> None:
    shared = common(keyed(tokens, one), keyed(tokens, other))
    assert shared == (len(tokens) if one == other else 0)


def test_what_was_shaped_differently_is_never_gone_on_from() -> None:
    cells = Cells(16, 2)
    held = cells.open(("legal", ""))
    assert held is not None
    cells.grow(held, keyed([1, 2, 3], 0))
    assert cells.nearest(keyed([1, 2, 3], 0), PLAIN) == (None, 0)
    assert cells.nearest(keyed([1, 2, 3], 0), ("legal", "")) == (held, 3)


def test_sets_of_readers_have_numbers_of_their_own_and_everybody_has_zero() -> None:
    numbers = Secrecies()
    ana, ben = (frozenset((frozenset((f"user:{name}",)),)) for name in ("ana", "ben"))
    assert numbers.number(frozenset()) == 0
    assert numbers.number(ana) == numbers.number(ana) != numbers.number(ben)
    for n in range(5000):
        assert numbers.number(frozenset((frozenset((str(n),)),))) not in (0, 1)
    assert numbers.number(ana) > 5000, "a number that was forgotten does not come back"


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_nobody_waits_for_more_than_one_request_of_each_other_asker(askers: list[str]) -> None:
    waiting: Waiting[tuple[str, int]] = Waiting()
    for number, asker in enumerate(askers):
        waiting.put((asker, number), asker)
    order = [waiting.take() for _ in askers]
    assert sorted(order, key=lambda item: item[1]) == list(zip(askers, range(len(askers)), strict=True))
    for asker in "abc":
        mine = [number for who, number in order if who == asker]
        assert mine == sorted(mine)
    for place, (asker, _) in enumerate(order):
        before = Counter(who for who, _ in order[:place])
        assert all(before[other] <= before[asker] + 1 for other in "abc")


def test_who_left_does_not_wait_any_more() -> None:
    waiting: Waiting[int] = Waiting()
    for number in range(6):
        waiting.put(number, str(number % 2))
    assert sorted(waiting.remove(lambda number: number < 3)) == [0, 1, 2]
    assert len(waiting) == 3
    assert sorted(waiting.take() for _ in range(3)) == [3, 4, 5]
    assert waiting.first() is None


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 12))
def test_a_guess_is_what_followed_the_same_words_before(tokens: list[int], most: int) -> None:
    guess = Lookup(tokens).guess(Step(), 1, most)
    assert len(guess) <= most
    if guess:
        places = [n for n in range(4, len(tokens)) if tokens[n - 4 : n] == tokens[-4:]]
        assert any(tokens[n : n + len(guess)] == guess for n in places)


def test_wrong_guesses_end_and_cheap_rows_make_them_longer() -> None:
    text, cheap, dear = [1, 2, 3, 4, 5, 6, 7, 8, 9] * 3, Step(), Step()
    for rows in (1, 2, 4, 8, 16) * 3:
        cheap.took(rows, 1.0 + 0.1 * rows)
        dear.took(rows, float(rows))
    hopeful = Lookup(text)
    assert len(hopeful.guess(cheap, 1, 15)) > len(hopeful.guess(dear, 1, 15)) == 0
    for _ in range(20):
        hopeful.learn(4, 0)
    assert hopeful.guess(cheap, 1, 15) == []


def test_nobody_guesses_at_the_cost_of_those_beside() -> None:
    text = Lookup([1, 2, 3, 4, 5, 6, 7, 8, 9] * 3)
    assert len(text.guess(Step(), 1, 15)) > 0
    assert text.guess(Step(), 8, 15) == []


@pytest.mark.parametrize(("rows", "cost"), [(1, 1.0), (3, 2.0), (16, 8.5)])
def test_what_a_step_costs_lies_between_and_beyond_what_was_seen(rows: int, cost: float) -> None:
    step = Step()
    for _ in range(3):
        step.took(1, 2.0)
        step.took(5, 6.0)
    assert np.isclose(step.cost(rows), cost)
