"""Make the reference pages from the docstrings: `python docs/reference/make.py`.

What a page lists is what its modules promise: the names in `__all__`, or else every public class, function and
documented constant that the module defines.
"""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

PAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "core": (
        "ringwall.app",
        "ringwall.runs",
        "ringwall.principal",
        "ringwall.label",
        "ringwall.turn",
        "ringwall.pipeline",
        "ringwall.steps",
        "ringwall.planning",
        "ringwall.container",
        "ringwall.runnable",
        "ringwall.vectorstore",
        "ringwall.bridge",
        "ringwall.library",
        "ringwall.plugins",
        "ringwall.health",
        "ringwall.cohort",
        "ringwall.keptfile",
        "ringwall.schema",
    ),
    "data": ("ringwall.data", "ringwall.data.care", "ringwall.data.contract"),
    "model": (
        "ringwall.model",
        "ringwall.model.router",
        "ringwall.model.health",
        "ringwall.model.rollout",
        "ringwall.model.cache",
        "ringwall.model.registry",
        "ringwall.model.files",
        "ringwall.model.langchain",
        "ringwall.model.contract",
    ),
    "deployment": (
        "ringwall.deployment",
        "ringwall.deployment.changes",
        "ringwall.deployment.checkpoints",
        "ringwall.deployment.expectations",
        "ringwall.deployment.explain",
        "ringwall.deployment.export",
        "ringwall.deployment.facts",
        "ringwall.deployment.gates",
        "ringwall.deployment.guard",
        "ringwall.deployment.disarm",
        "ringwall.deployment.policy_check",
        "ringwall.deployment.reasons",
        "ringwall.deployment.simulation",
        "ringwall.deployment.contract",
        "ringwall.deployment.guard_contract",
        "ringwall.deployment.journal_contract",
        "ringwall.deployment.logs",
        "ringwall.deployment.rollout",
        "ringwall.deployment.sink_contract",
        "ringwall.deployment.ledger_contract",
        "ringwall.deployment.limiter_contract",
    ),
    "interface": (
        "ringwall.interface",
        "ringwall.interface.functions",
        "ringwall.interface.plan",
        "ringwall.interface.origin",
        "ringwall.interface.formats",
        "ringwall.interface.conditions",
        "ringwall.interface.meaning",
        "ringwall.interface.contract",
    ),
    "personalization": (
        "ringwall.personalization",
        "ringwall.personalization.compose",
        "ringwall.personalization.prompts",
        "ringwall.personalization.contract",
    ),
    "plugins": (
        "ringwall_audit",
        "ringwall_casbin",
        "ringwall_chroma",
        "ringwall_compress",
        "ringwall_files",
        "ringwall_guards",
        "ringwall_hosted",
        "ringwall_index",
        "ringwall_limits",
        "ringwall_llama",
        "ringwall_minilm",
        "ringwall_otel",
        "ringwall_splitting",
        "ringwall_sql",
        "ringwall_wordllama",
    ),
}

HERE: Final = Path(__file__).parent
WIDTH: Final = 100


def page(name: str) -> str:
    """The text of one page."""
    parts = [f"# Reference: {name}", "Made from the docstrings by `docs/reference/make.py`; change them there."]
    for module_name in PAGES[name]:
        module = import_module(module_name)
        parts += [f"## {module_name}", inspect.getdoc(module) or "", *_entries(module)]
    return "\n\n".join(part for part in parts if part) + "\n"


def public_names(module: ModuleType) -> list[str]:
    """What a module promises, in the order in which it says so."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    defined = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    names = dict.fromkeys((*_constants(module), *defined))
    return [name for name in names if not name.startswith("_") and _is_told(module, name)]


def _is_told(module: ModuleType, name: str) -> bool:
    value = getattr(module, name)
    return inspect.isclass(value) or inspect.isfunction(value) or name in _constants(module)


def _entries(module: ModuleType) -> Iterator[str]:
    for name in public_names(module):
        value = getattr(module, name)
        yield f"### {name}"
        if inspect.isclass(value):
            yield from _class(name, value)
        elif inspect.isfunction(value):
            yield from (_code(_signature(name, value)), inspect.getdoc(value) or "")
        else:
            yield from _constant(module, name)


def _class(name: str, cls: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    if issubclass(cls, enum.Enum):
        yield _code("\n".join((f"class {name}({bases})", *(f"    {m.name} = {m.value!r}" for m in cls))))
    elif inspect.isabstract(cls) or "__init__" not in vars(cls) or getattr(cls, "_is_protocol", False):
        yield _code(f"class {name}({bases})" if bases else f"class {name}")
    else:
        yield _code(_signature(name, cls, prefix="class "))
    yield _own_doc(cls)
    if name.endswith("Contract"):
        yield "\n".join(f"- {test[5:].replace('_', ' ')}" for test in vars(cls) if test.startswith("test_"))
        return
    for method_name, member in vars(cls).items():
        if not method_name.startswith("_"):
            yield from _member(f"{name}.{method_name}", cls, method_name, member)


def _own_doc(cls: type) -> str:
    """A class's own docstring; dataclasses make one that repeats the signature."""
    doc = inspect.getdoc(cls) or ""
    return "" if is_dataclass(cls) and doc.startswith(f"{cls.__name__}(") else doc


def _member(title: str, cls: type, name: str, member: Any) -> Iterator[str]:
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    marks = "abstract " if getattr(member, "__isabstractmethod__", False) else ""
    if isinstance(member, property):
        returns = inspect.signature(member.fget).return_annotation if member.fget else ""
        yield from (f"#### {title}", _code(f"{marks}property {name}: {_Raw.of(returns)}"))
    elif inspect.isfunction(function):
        yield from (f"#### {title}", _code(_signature(name, function, prefix=marks)))
    else:
        return
    yield _method_doc(cls, name)


def _method_doc(cls: type, name: str) -> str:
    """What is said of a method here or in an interface of ours: not what another library says of its own."""
    for home in cls.__mro__:
        doc = getattr(vars(home).get(name), "__doc__", None)
        if doc and home.__module__.startswith("ringwall"):
            return inspect.cleandoc(doc)
    return ""


class _Raw:
    """A text that a signature shows as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    @classmethod
    def of(cls, value: object) -> _Raw:
        """What a reader would have written: no addresses, no quotes around annotations."""
        if isinstance(value, enum.Enum):
            return cls(f"{type(value).__name__}.{value.name}")
        if isinstance(value, str):
            return cls(value)
        return cls(getattr(value, "__qualname__", "") or repr(value))


def _signature(name: str, target: Callable[..., Any], *, prefix: str = "") -> str:
    if inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target):
        prefix += "async "
    signature = inspect.signature(target)
    parameters = [_plain(p) for p in signature.parameters.values() if p.name not in ("self", "cls")]
    returns = signature.return_annotation
    plain = signature.replace(
        parameters=parameters,
        return_annotation=inspect.Signature.empty
        if inspect.isclass(target) or returns is inspect.Signature.empty
        else _Raw.of(returns),
    )
    line = f"{prefix}{name}{plain}"
    return line if len(line) <= WIDTH else f"{prefix}{name}{_folded(plain)}"


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    annotation, default = parameter.annotation, parameter.default
    if annotation is not parameter.empty:
        parameter = parameter.replace(annotation=_Raw.of(annotation))
    if default is not parameter.empty:
        parameter = parameter.replace(default=_shown(default))
    return parameter


def _shown(default: object) -> _Raw:
    if repr(default) == "<factory>":
        return _Raw("...")
    if isinstance(default, Mapping):
        return _Raw(repr(dict(default)))
    if isinstance(default, tuple):
        return _Raw(repr(tuple(map(_shown, default))))
    if isinstance(default, frozenset) and default:
        return _Raw(f"frozenset({{{', '.join(sorted(map(repr, default)))}}})")
    return _Raw.of(default) if isinstance(default, enum.Enum) or callable(default) else _Raw(repr(default))


def _folded(signature: inspect.Signature) -> str:
    """One parameter a line."""
    lines = []
    keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            keyword_only = True
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            lines.append("    *,")
            keyword_only = True
        lines.append(f"    {parameter},")
    returns = signature.return_annotation
    arrow = "" if returns is signature.empty else f" -> {returns!r}"
    return "\n".join(("(", *lines, f"){arrow}"))


def _constant(module: ModuleType, name: str) -> Iterator[str]:
    home = _home(module, name)
    text, doc = _constants(home).get(name, ("", ""))
    if text.count("\n") < 4:
        yield _code(text)
    yield doc


def _home(module: ModuleType, name: str) -> ModuleType:
    """The module that defines a constant: a package's `__init__` only re-exports it."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module and name in (alias.name for alias in node.names):
            return import_module(node.module)
    return module


def _constants(module: ModuleType) -> dict[str, tuple[str, str]]:
    """The constants of a module that a string right below them tells of: their source, and that string."""
    source = inspect.getsource(module)
    body = ast.parse(source).body
    found = {}
    for node, below in itertools.pairwise(body):
        match node, below:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(doc))),
            ):
                found[name] = (ast.get_source_segment(source, node) or "", inspect.cleandoc(doc))
    return found


def _code(text: str) -> str:
    return f"```py\n{text}\n```" if text else ""


def main() -> None:
    """Write every page."""
    for name in PAGES:
        (HERE / f"{name}.md").write_text(page(name), encoding="utf-8")


if __name__ == "__main__":
    main()
