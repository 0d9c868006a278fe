"""The chats that local engines are asked, the same for everybody; nothing but the standard library is imported.

Their questions ask for more than `NEW` tokens, so that nearly no answer ends before it is cut off there: nobody needs
to be told to go on, which some peers can only do slowly. What is counted is what came.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

NEW: Final = 64
"""Tokens of an answer in a burst."""

ALONE: Final = 128
"""Tokens of an answer to one who asks alone."""

HANDBOOK: Final = """\
You are the assistant of the Lakeside Inn, a small hotel with a restaurant. Answer every question of a guest fully, \
in plain sentences, and never ask back.

Rooms. There are eighteen rooms on three floors. Those that look at the lake have even numbers, those that look at \
the garden have odd ones. Guests arrive from three in the afternoon and leave until eleven in the morning; whoever \
wants to stay longer asks the front desk on the day before. Dogs are welcome on the ground floor, and a bowl and a \
blanket are in the cupboard by the stairs. The lift goes to the second floor only.

Meals. Breakfast is served from seven to ten in the winter garden, on Sundays until noon. The kitchen bakes its own \
bread, smokes its own trout, and buys vegetables from the two farms across the bay. Dinner begins at six; the last \
orders are taken at nine. Guests who cannot eat nuts, milk or gluten tell the waiter, who marks it on the order with \
a red line. Wine is listed by region, and every bottle under forty is also poured by the glass. Children eat at half \
the price, and there are crayons and paper in the drawer under the counter.

Outside. Rowing boats lie at the jetty and are free for an hour; life jackets hang in the shed, and nobody goes out \
without one. The path around the lake takes about three hours on foot. In winter the sauna is heated from four, and \
the ice is tested every morning by the fire brigade, which puts up a green flag when it bears. Bicycles are rented by \
the day, with a lock and a map. The bus to the town leaves at ten past every hour from the stop by the chapel.

House. The doors are locked at eleven; the key of the room opens the door at the side. Fires are lit in the library \
from October on, and the books there may be taken along if another one is left in their place. The telephone of the \
front desk is answered day and night. When an alarm sounds, everybody meets on the lawn by the oak, and the list of \
the guests is read out. Lost things are kept for a year. The house was built in 1904 by a shipwright, and burned down \
once.
"""
"""A public system prompt of some 480 tokens."""

_THINGS: Final = (
    *("bread", "glass", "salt", "paper", "the bicycle", "the lighthouse", "tea", "coffee", "the clock", "the compass"),
    *(
        "silk",
        "the piano",
        "chocolate",
        "the telescope",
        "steel",
        "the camera",
        "rice",
        "ink",
        "the canal",
        "the bridge",
    ),
    *("cheese", "the violin", "sugar", "the windmill", "wool", "the printing press", "soap", "porcelain", "the sail"),
    *("honey", "the railway", "cotton", "the lamp", "wine", "the map", "leather", "the umbrella", "pepper", "the lock"),
)
_ASPECTS: Final = (
    "Tell me in great detail the history of {}.",
    "Explain in great detail, step by step, how {} came to be made as it is today.",
    "Write a long essay about {} and what people have used it for.",
    "Describe in great detail what a traveller could learn about {} in a museum.",
)
_QUESTIONS: Final = tuple(aspect.format(thing) for aspect in _ASPECTS for thing in _THINGS)


@dataclass(frozen=True, slots=True)
class Chat:
    """A system prompt, a question, and how many tokens the answer may have."""

    system: str
    question: str
    tokens: int = NEW


def burst(number: int, size: int) -> list[Chat]:
    """So many chats under one system prompt; each number has questions of its own, until all were asked."""
    places = range(number * size, (number + 1) * size)
    return [Chat(HANDBOOK, _QUESTIONS[place % len(_QUESTIONS)]) for place in places]


def alone(number: int) -> Chat:
    """A question without much before it."""
    return Chat("You are a helpful assistant.", _QUESTIONS[number % len(_QUESTIONS)], ALONE)


# --- Over one context ---------------------------------------------------------------------------------

_NAMES: Final = ("Ana", "Bo", "Cleo", "Dan", "Eva", "Finn", "Greta", "Hugo", "Ida", "Jon", "Kaya", "Leo")
_DID: Final = ("repaired", "painted", "bought", "sold", "found", "lost", "borrowed", "measured", "hid", "broke")
_WHAT: Final = ("the boat", "a ladder", "the old clock", "two chairs", "the red bicycle", "a lamp", "the garden gate")
_WHERE: Final = ("by the jetty", "in the library", "behind the chapel", "on the lawn", "in the cellar", "at the mill")


def _sentences(number: int, count: int) -> str:
    chosen = random.Random(number)
    written = (
        f"On day {day} {chosen.choice(_NAMES)} {chosen.choice(_DID)} {chosen.choice(_WHAT)} {chosen.choice(_WHERE)}."
        for day in range(1, count + 1)
    )
    return " ".join(written)


def two_questions(number: int) -> tuple[Chat, Chat]:
    """Two questions over the same context, which has some 800 tokens and is another for each number."""
    context = f"Answer from this log.\n\n{_sentences(number, 56)}"
    questions = ("Which things did Ana have to do with?", "What happened at the mill, and who was there?")
    first, second = (Chat(context, question, 8) for question in questions)
    return first, second


def copying(number: int) -> Chat:
    """A question whose answer repeats what stands in the prompt."""
    passage = _sentences(1000 + number, 8)
    ways = (
        "Repeat this log word by word, and add nothing:\n\n{}",
        "Copy this text exactly:\n\n{}",
        "Quote the whole log and then say who occurs in it:\n\n{}",
    )
    return Chat("You quote exactly.", ways[number % len(ways)].format(passage), ALONE)
