"""What inline styles and attributes do to a text's looks: whether somebody who opens the page sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

Attributes = Mapping[str, str | None]

_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_TINIEST: Final = {"px": 2.0, "pt": 1.5, "em": 0.15, "rem": 0.15, "%": 15.0, "": 2.0}
_FAR: Final = -500.0
_WHITE: Final = re.compile(
    r"white|#f{3,4}|#f{6}(?:f{2})?|rgba?\(\s*(?:255|100%)[\s,]+(?:255|100%)[\s,]+(?:255|100%)[^)]*\)"
)
_CLEAR: Final = re.compile(r"transparent|#[0-9a-f]{3}0|#[0-9a-f]{6}00|(?:rgb|hsl)a?\([^)]*[,/]\s*0*\.?0*%?\s*\)")


@dataclass(frozen=True, slots=True)
class Look:
    """How an element looks. Nothing inside can undo `gone`; the rest holds until an element says otherwise."""

    gone: bool = False
    invisible: bool = False
    tiny: bool = False
    clear: bool = False
    white: bool = False
    on_white: bool = True

    @property
    def hidden(self) -> bool:
        return self.gone or self.invisible or self.tiny or self.clear or (self.white and self.on_white)


def look_within(around: Look, tag: str, attributes: Attributes) -> Look:
    """How an element looks that stands in one that looks like `around`."""
    if not attributes and tag != "noscript":
        return around
    style = _declarations(attributes.get("style") or "")
    color = style.get("color", attributes.get("color") or "") if tag == "font" else style.get("color", "")
    return replace(
        around,
        gone=around.gone or tag == "noscript" or "hidden" in attributes or _gone(style),
        invisible=_after(style, "visibility", ("hidden", "collapse"), before=around.invisible),
        tiny=_tiny(style["font-size"]) if "font-size" in style else around.tiny,
        clear=bool(_CLEAR.fullmatch(color)) if color else around.clear,
        white=bool(_WHITE.fullmatch(color.lower())) if color else around.white,
        on_white=_on_white(style, attributes, before=around.on_white),
    )


def _declarations(style: str) -> dict[str, str]:
    pairs = (part.split(":", 1) for part in _COMMENT.sub("", style.lower()).split(";") if ":" in part)
    return {name.strip(): value.replace("!important", "").strip() for name, value in pairs}


def _after(style: Mapping[str, str], name: str, values: tuple[str, ...], *, before: bool) -> bool:
    return style[name] in values if name in style else before


def _gone(style: Mapping[str, str]) -> bool:
    return (
        style.get("display") == "none"
        or _number(style.get("opacity", "1")) == 0
        or any(_number(style.get(name, "0")) <= _FAR for name in ("left", "top", "text-indent", "margin-left"))
        or (style.get("overflow") == "hidden" and "0" in (style.get(n, "")[:1] for n in ("width", "height")))
    )


def _number(value: str) -> float:
    found = _NUMBER.match(value)
    return float(found[0]) if found else 1.0


def _tiny(size: str) -> bool:
    found = _NUMBER.match(size)
    return found is not None and float(found[0]) < _TINIEST.get(size[found.end() :].strip(), 0.0)


def _on_white(style: Mapping[str, str], attributes: Attributes, *, before: bool) -> bool:
    if "background-image" in style:
        return False
    color = style.get("background-color") or style.get("background") or (attributes.get("bgcolor") or "").lower()
    if not color or _CLEAR.fullmatch(color) or color in ("none", "inherit"):
        return before
    return bool(_WHITE.fullmatch(color))
