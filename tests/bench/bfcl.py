"""Questions of the Berkeley Function Calling Leaderboard, and its own judgement of calls.

Both are in the wheel `bfcl-eval`: `pip download --no-deps bfcl-eval==2026.3.23`, unzipped. Nothing of it is kept here.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final, TypeAlias

CATEGORIES: Final = ("simple_python", "multiple")

Schema: TypeAlias = dict[str, Any]

_TYPES: Final = {"dict": "object", "float": "number", "tuple": "array"}
"""What these questions call otherwise than JSON schema does."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function on offer; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Schema


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, what is on offer, and how the questions' authors wrote both down."""

    text: str
    functions: tuple[Function, ...]
    written: list[dict[str, Any]]
    truth: list[dict[str, Any]]


class Bfcl:
    """The unzipped wheel in a folder. Raises `FileNotFoundError` for another one."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "bfcl_eval" / "data"
        if not self._data.is_dir():
            raise FileNotFoundError(f"{self._data} is missing: unzip the wheel bfcl-eval into {folder}")
        self._check = _checker(folder)

    def questions(self, category: str, limit: int | None) -> list[Question]:
        asked = _lines(self._data / f"BFCL_v4_{category}.json")
        truths = {
            each["id"]: each["ground_truth"]
            for each in _lines(self._data / "possible_answer" / f"BFCL_v4_{category}.json")
        }
        return [_question(each, truths[each["id"]]) for each in asked[:limit]]

    def is_right(self, category: str, question: Question, calls: list[Call]) -> bool:
        """Whether the leaderboard's checker takes these calls."""
        made = [{call.name: call.arguments} for call in calls]
        python = importlib.import_module("bfcl_eval.constants.enums").Language.PYTHON
        return bool(self._check(question.written, made, question.truth, python, category, "any")["valid"])


def _checker(folder: Path) -> Any:
    """Import the checker alone: the list of models it looks in would import every provider's client."""
    sys.path.insert(0, str(folder))
    models = ModuleType("bfcl_eval.constants.model_config")
    any_model = SimpleNamespace(underscore_to_dot=False)
    models.__dict__["MODEL_CONFIG_MAPPING"] = defaultdict(lambda: any_model)
    sys.modules[models.__name__] = models
    return importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker").ast_checker


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _question(written: Any, truth: list[dict[str, Any]]) -> Question:
    text = "\n".join(message["content"] for message in written["question"][0])
    functions = tuple(
        Function(each["name"], each["description"], _json_schema(each["parameters"])) for each in written["function"]
    )
    return Question(text, functions, written["function"], truth)


def _json_schema(written: Schema) -> Schema:
    """As JSON schema says it; what does not bind a value is left out."""
    schema: Schema = {key: written[key] for key in ("description", "enum", "required") if key in written}
    kind = written.get("type", "any")
    if kind != "any":
        schema["type"] = _TYPES.get(kind, kind)
    if "properties" in written:
        schema["properties"] = {name: _json_schema(each) for name, each in written["properties"].items()}
    if "items" in written:
        schema["items"] = _json_schema(written["items"])
    return schema
