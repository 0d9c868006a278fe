"""Words as they are compared."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from ringwall.data.lexical import words


@given(st.text(st.characters(max_codepoint=127)))
@example("Under_scores, CASE and 3.5 o'clock\x1c\x1fend")
def test_text_in_ascii_has_the_words_it_has_beside_other_text(text: str) -> None:
    # Beside a letter outside of ASCII, words are found in another way.
    assert words(f"trout {text} x")[1:] == words(f"é {text} x")[1:]


def test_a_text_of_function_words_alone_keeps_them() -> None:
    assert words("The Who") == ["the", "who"]
    assert words("The trout") == ["trout"]


def test_more_words_than_are_remembered_have_the_stems_they_had() -> None:
    many = [f"cooking{number}s" for number in range(20_000)]
    assert words(" ".join(many)) == [word for one in many for word in words(one)]
    assert words("cookings") == ["cook"]
