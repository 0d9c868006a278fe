"""The reference: up to date with the docstrings, and complete."""

from __future__ import annotations

import importlib.util
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from ringwall import cli, errors

FOLDER: Final = Path("docs/reference").resolve()
RINGS: Final = ("data", "model", "deployment", "interface", "personalization")


def the_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_maker", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER: Final = the_maker()


def headings(*pages: str) -> set[str]:
    lines = (line for page in pages for line in (FOLDER / f"{page}.md").read_text(encoding="utf-8").splitlines())
    return {line.lstrip("#").strip() for line in lines if line.startswith("##")}


def interfaces(module: ModuleType) -> list[type]:
    return [value for _, value in inspect.getmembers(module, inspect.isabstract) if value.__module__ == module.__name__]


@pytest.mark.parametrize("name", MAKER.PAGES)
def test_a_page_says_what_the_docstrings_say(name: str) -> None:
    written = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert written == MAKER.page(name), "run `python docs/reference/make.py`"


def test_every_public_name_is_documented() -> None:
    told = headings(*MAKER.PAGES)
    for module in ("ringwall", *(f"ringwall.{ring}" for ring in RINGS)):
        assert set(import_module(module).__all__) <= told


@pytest.mark.parametrize(
    "module", [*(f"ringwall.{ring}.base" for ring in RINGS), "ringwall.deployment.journal", "ringwall.pipeline"]
)
def test_every_extension_point_is_documented_method_by_method(module: str) -> None:
    told = headings(*MAKER.PAGES)
    found = interfaces(import_module(module))
    assert found
    for interface in found:
        assert interface.__name__ in told
        abstract: frozenset[str] = getattr(interface, "__abstractmethods__")  # noqa: B009
        own = abstract & vars(interface).keys()  # what it inherits is told where it comes from
        assert {f"{interface.__name__}.{method}" for method in own} <= told


def test_every_command_is_documented() -> None:
    told = headings("cli")
    groups = {f"{group.name} ": group.typer_instance for group in cli.app.registered_groups}
    for prefix, app in {"": cli.app, **groups}.items():
        assert app is not None
        for command in app.registered_commands:
            assert command.callback is not None
            assert f"ringwall {prefix}{command.name or command.callback.__name__}" in told


def test_every_error_is_documented_with_what_to_do() -> None:
    raised = {name for name, _ in inspect.getmembers(errors, inspect.isclass)} - {"RingwallError"}
    assert raised <= headings("errors")
