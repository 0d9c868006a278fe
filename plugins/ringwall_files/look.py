"""What inline styles and attributes do to a text's looks: whether somebody who opens the page sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

Attributes = Mapping[str, str | None]
Color = tuple[int, ...]
"""Red, green, blue; and then opacity, if it has one, all from 0 to 255."""

WHITE: Final = (255, 255, 255)

_UNSHOWN: Final = frozenset(("audio", "canvas", "datalist", "iframe", "noscript", "object", "video"))
"""What stands in these is for browsers that cannot show them."""

_NAMES: Final = {"white": WHITE, "black": (0, 0, 0), "transparent": (0, 0, 0, 0)}
_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_CHANNEL: Final = re.compile(r"(\d+\.?\d*|\.\d+)(%?)")
_TINIEST: Final = {"px": 2.0, "pt": 1.5, "em": 0.15, "rem": 0.15, "%": 15.0, "": 2.0}
_FAR: Final = -500.0
_NEAR: Final = 8
"""Colors that differ by less are one to the eye."""


@dataclass(frozen=True, slots=True)
class Look:
    """How an element looks. Nothing inside can undo `gone`; the rest holds until an element says otherwise.

    `color` and `ground` are None where nobody here knows them: style sheets are not read.
    """

    gone: bool = False
    invisible: bool = False
    tiny: bool = False
    color: Color | None = None
    ground: Color | None = WHITE

    @property
    def hidden(self) -> bool:
        return self.gone or self.invisible or self.tiny or self._is_camouflaged

    @property
    def _is_camouflaged(self) -> bool:
        if self.color is None:
            return False
        if self.color[3:] == (0,):
            return True
        return self.ground is not None and all(
            abs(one - other) < _NEAR for one, other in zip(self.color[:3], self.ground[:3], strict=True)
        )


def look_within(around: Look, tag: str, attributes: Attributes) -> Look:
    """How an element looks that stands in one that looks like `around`."""
    if not attributes and tag not in _UNSHOWN:
        return around
    style = _declarations(attributes.get("style") or "")
    color = style.get("color") or (attributes.get("color") if tag == "font" else None)
    return replace(
        around,
        gone=around.gone or tag in _UNSHOWN or "hidden" in attributes or _gone(style),
        invisible=style["visibility"] in ("hidden", "collapse") if "visibility" in style else around.invisible,
        tiny=_tiny(style["font-size"]) if "font-size" in style else around.tiny,
        color=_color(color.lower()) if color else around.color,
        ground=_ground(style, attributes.get("bgcolor"), around.ground),
    )


def _declarations(style: str) -> dict[str, str]:
    pairs = (part.split(":", 1) for part in _COMMENT.sub("", style.lower()).split(";") if ":" in part)
    return {name.strip(): value.replace("!important", "").strip() for name, value in pairs}


def _gone(style: Mapping[str, str]) -> bool:
    is_cut = style.get("overflow") == "hidden" and any(
        _number(style.get(name, "")) == 0 for name in ("width", "height", "max-width", "max-height")
    )
    is_far = any(_number(style.get(name, "")) <= _FAR for name in ("left", "top", "text-indent", "margin-left"))
    return style.get("display") == "none" or _number(style.get("opacity", "")) == 0 or is_cut or is_far


def _number(value: str) -> float:
    """The number that a value begins with; 1, which hides nothing, if there is none."""
    found = _NUMBER.match(value)
    return float(found[0]) if found else 1.0


def _tiny(size: str) -> bool:
    found = _NUMBER.match(size)
    return found is not None and float(found[0]) < _TINIEST.get(size[found.end() :].strip(), 0.0)


def _ground(style: Mapping[str, str], attribute: str | None, before: Color | None) -> Color | None:
    if "background-image" in style or "url(" in style.get("background", ""):
        return None
    value = style.get("background-color") or style.get("background") or (attribute or "").lower()
    if not value or value in ("none", "inherit"):
        return before
    color = _color(value)
    return before if color is not None and color[3:] == (0,) else color


def _color(value: str) -> Color | None:
    """A color as a name, as `#hex` or as `rgb(...)`; None for one that is written otherwise."""
    digits = value.removeprefix("#")
    if value.startswith("#") and re.fullmatch("[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8}", digits):
        pairs = [digit * 2 for digit in digits] if len(digits) < 6 else re.findall("..", digits)
        return tuple(int(pair, 16) for pair in pairs)
    if value.startswith("rgb"):
        parts = enumerate(_CHANNEL.findall(value)[:4])
        color = tuple(
            _channel(float(number), is_percent=bool(percent), is_alpha=at == 3) for at, (number, percent) in parts
        )
        return color if len(color) >= 3 else None
    return _NAMES.get(value)


def _channel(number: float, *, is_percent: bool, is_alpha: bool) -> int:
    scale = 2.55 if is_percent else 255 if is_alpha else 1
    return int(min(number * scale, 255))
