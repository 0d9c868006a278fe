"""Which casbin models we compile: the bundled one and its stricter relatives. Any other is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import casbin

from ringwall.errors import BadPolicy, ConfigurationError

BUNDLED: Final = Path(__file__).with_name("model.conf")

_SECTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "r": ("request_definition", "sub, dom, obj, act"),
    "p": ("policy_definition", "sub, dom, obj, act, eft"),
    "g": ("role_definition", "_, _, _"),
    "e": ("policy_effect", "some(where (p.eft == allow)) && !some(where (p.eft == deny))"),
}

# What each part of a matcher may be, without white space, and whether it makes `*` a wildcard in that field.
_TERMS: Final[Mapping[str, tuple[str, bool]]] = {
    "g(r_sub,p_sub,r_dom)": ("sub", False),
    "(g(r_sub,p_sub,r_dom)||keyMatch(r_sub,p_sub))": ("sub", True),
    "(keyMatch(r_sub,p_sub)||g(r_sub,p_sub,r_dom))": ("sub", True),
    **{f"r_{name}==p_{name}": (name, False) for name in ("dom", "obj", "act")},
    **{f"keyMatch(r_{name},p_{name})": (name, True) for name in ("dom", "obj", "act")},
}
_MATCHER: Final = (
    "one term for each of sub, dom, obj and act, joined by `&&`: `g(r.sub, p.sub, r.dom)`, alone or in "
    "`(keyMatch(r.sub, p.sub) || g(r.sub, p.sub, r.dom))`; `r.obj == p.obj` or `keyMatch(r.obj, p.obj)`"
)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was understood: its text, and the fields in which `*` is a wildcard."""

    text: str
    patterns: frozenset[str]


def read_model(path: Path) -> Model:
    """Read a model file. Raises `BadPolicy` naming file and line when we could not compile its meaning."""
    _refuse_stale_casbin()
    text, model = read_text(path), casbin.Model()
    try:
        model.load_model_from_text(text)
    except RuntimeError as error:
        raise BadPolicy(f"casbin model {path}: {error}", expected="`key = value`") from None
    _check_sections(path, text, model)
    return Model(text, _patterns(path, text, model["m"]["m"].value))


def read_text(path: Path) -> str:
    """The text of a file in UTF-8. Raises `BadPolicy` naming the file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadPolicy(f"{path} cannot be read: {error.strerror}", expected="a file of casbin's") from None
    except UnicodeDecodeError as error:
        raise BadPolicy(f"{path} is not UTF-8 at byte {error.start}", expected="text in UTF-8") from None


def _refuse_stale_casbin() -> None:
    """Two distributions claim the module `casbin`; with both installed, the abandoned one is active."""
    try:
        version = metadata.version("casbin")
    except metadata.PackageNotFoundError:
        return
    raise ConfigurationError(
        f"the abandoned distribution `casbin` {version} is installed where `pycasbin` belongs",
        hint="pip uninstall -y casbin pycasbin && pip install 'ringwall[casbin]'",
    )


def _check_sections(path: Path, text: str, model: casbin.Model) -> None:
    for key, (section, wanted) in {**_SECTIONS, "m": ("matchers", "")}.items():
        definitions = model[key] or {}
        expected = f"one `{key} = {wanted or '...'}` in [{section}]"
        if list(definitions) != [key]:
            raise BadPolicy(f"casbin model {path} has {len(definitions)} definitions in [{section}]", expected=expected)
        value = definitions[key].value
        if wanted and _bare(value).replace("p_eft", "p.eft") != _bare(wanted):
            raise BadPolicy(f"{_where(path, text, key)}: `{key} = {value}` has another meaning", expected=expected)


def _patterns(path: Path, text: str, matcher: str) -> frozenset[str]:
    """The fields with wildcards, if every term of the matcher is known and each field has just one."""
    terms = [_TERMS.get(term) for term in _bare(matcher).split("&&")]
    known = [term for term in terms if term]
    if len(known) != len(terms) or sorted(name for name, _ in known) != ["act", "dom", "obj", "sub"]:
        raise BadPolicy(f"{_where(path, text, 'm')}: a matcher that cannot be compiled: {matcher}", expected=_MATCHER)
    return frozenset(name for name, wildcard in known if wildcard)


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _where(path: Path, text: str, key: str) -> str:
    """Name file and line of a definition."""
    numbers = (n for n, line in enumerate(text.splitlines(), 1) if re.match(rf"\s*{key}\s*=", line))
    return f"casbin model {path}, line {next(numbers, 0)}"
