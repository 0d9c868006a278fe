"""Tool calls of a small model: `python tests/bench/tool_calls.py FOLDER`, a JSON line for each figure, a verdict last.

How many questions of the Berkeley Function Calling Leaderboard (`simple_python`, `multiple`) the bundled model answers
with the right call, as the leaderboard's own checker sees it: asked through our tool calling, through
llama-cpp-python's `chatml-function-calling`, and in plain words. All greedy, the same questions. And how many of the
calls made through ours fit their schema: it should be all. One that does not get to its end within its tokens is not
made: cut short, it would do something else. FOLDER is the unzipped wheel `bfcl-eval`.

Exits with 1 where a peer is right more often, or a call does not fit.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import llama_cpp
from langchain_core.messages import HumanMessage

from bfcl import CATEGORIES, Bfcl, Call, Question
from ringwall.errors import BadReply, ContextOverflow
from ringwall.model import ModelRequest, Sampling, ToolSpec, collect
from ringwall.model.base import ANY_TOOL
from ringwall_llama import LlamaCpp
from ringwall_llama.provider import bundled_model

TOKENS: Final = 256
WINDOW: Final = 1536
AT_ONCE: Final = 16

Answers: TypeAlias = list[list[Call]]
"""The calls made for each question; none where the reply was no call."""


# --- Ours ---------------------------------------------------------------------------------------------


async def _ringwall(questions: Sequence[Question], threads: int) -> Answers:
    model = LlamaCpp(context=WINDOW, threads=threads, slots=AT_ONCE)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> list[Call]:
        tools = tuple(ToolSpec(each.name, each.description, each.parameters) for each in question.functions)
        request = ModelRequest(
            (HumanMessage(question.text),), tools=tools, tool_choice=ANY_TOOL, sampling=Sampling(max_tokens=TOKENS)
        )
        async with room:
            try:
                reply = await collect(model.stream(request))
            except (BadReply, ContextOverflow) as error:
                print(f"no call: {error}", file=sys.stderr)
                return []
        return [Call(call.name, json.loads(call.arguments)) for call in reply.calls]

    try:
        return await asyncio.gather(*map(one, questions))
    finally:
        await model.close()


def ringwall(questions: Sequence[Question], threads: int) -> Answers:
    return asyncio.run(_ringwall(questions, threads))


# --- Peers --------------------------------------------------------------------------------------------


def _llama(threads: int, **options: Any) -> llama_cpp.Llama:
    return llama_cpp.Llama(
        str(bundled_model()), n_ctx=WINDOW, n_threads=threads, n_threads_batch=threads, verbose=False, **options
    )


def handler(questions: Sequence[Question], threads: int) -> Answers:
    """llama-cpp-python's handler. It can be made to call a certain function, so that is done where there is one."""
    model = _llama(threads, chat_format="chatml-function-calling")

    def one(question: Question) -> list[Call]:
        tools = [{"type": "function", "function": _described(each)} for each in question.functions]
        only = {"type": "function", "function": {"name": question.functions[0].name}}
        reply: Any = model.create_chat_completion(
            [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": question.text}],
            tools=tools,  # type: ignore[arg-type]
            tool_choice=only if len(tools) == 1 else "auto",  # type: ignore[arg-type]
            temperature=0.0,
            repeat_penalty=1.0,
            max_tokens=TOKENS,
        )
        made = reply["choices"][0]["message"].get("tool_calls") or []
        return [Call(each["function"]["name"], json.loads(each["function"]["arguments"])) for each in made]

    return [_or_none(one, question) for question in questions]


def plain(questions: Sequence[Question], threads: int) -> Answers:
    """The functions as JSON in the system prompt, and the first JSON in the reply, without a grammar."""
    model = _llama(threads)

    def one(question: Question) -> list[Call]:
        described = "\n".join(json.dumps(_described(each)) for each in question.functions)
        asked = 'Reply with one call of a function, as JSON only: {"name": ..., "arguments": {...}}. The functions:'
        reply: Any = model.create_chat_completion(
            [{"role": "system", "content": f"{asked}\n{described}"}, {"role": "user", "content": question.text}],
            temperature=0.0,
            repeat_penalty=1.0,
            max_tokens=TOKENS,
        )
        text = reply["choices"][0]["message"]["content"]
        made, _ = json.JSONDecoder().raw_decode(text[max(text.find("{"), 0) :])
        return [Call(made["name"], dict(made["arguments"]))]

    return [_or_none(one, question) for question in questions]


def _described(function: Any) -> dict[str, Any]:
    return {"name": function.name, "description": function.description, "parameters": function.parameters}


def _or_none(ask: Callable[[Question], list[Call]], question: Question) -> list[Call]:
    """What is no JSON, no call in JSON, or too long for the window, is no call."""
    try:
        return ask(question)
    except (ValueError, KeyError, TypeError) as error:
        print(f"no call: {type(error).__name__}: {error} ({ask.__qualname__})", file=sys.stderr)
        return []


# --- Judged -------------------------------------------------------------------------------------------

CALLERS: Final = {"ringwall": ringwall, "chatml-function-calling": handler, "plain": plain}


def accuracy(bfcl: Bfcl, category: str, questions: Sequence[Question], answers: Answers) -> float:
    both = zip(questions, answers, strict=True)
    return round(sum(bfcl.is_right(category, question, calls) for question, calls in both) / len(questions), 3)


def fitting(questions: Sequence[Question], answers: Answers) -> int:
    """How many questions got just one call, of a function on offer, with arguments that fit its schema."""
    return sum(_fits(question, calls) for question, calls in zip(questions, answers, strict=True))


def _fits(question: Question, calls: list[Call]) -> bool:
    validator: Any = importlib.import_module("jsonschema").Draft202012Validator
    schemas = {each.name: each.parameters for each in question.functions}
    return (
        len(calls) == 1
        and calls[0].name in schemas
        and bool(validator(schemas[calls[0].name]).is_valid(calls[0].arguments))
    )


def main() -> None:
    """Measure, tell, and exit with 1 when short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="questions of each category")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    bfcl, short = Bfcl(arguments.folder), []
    for category in CATEGORIES:
        questions = bfcl.questions(category, arguments.limit)
        right: dict[str, float] = {}
        for name, call in CALLERS.items():
            began = time.monotonic()
            answers = call(questions, arguments.threads)
            right[name] = accuracy(bfcl, category, questions, answers)
            fit, made = fitting(questions, answers), sum(map(bool, answers))
            told = {"figure": category, "caller": name, "questions": len(questions), "accuracy": right[name]}
            print(
                json.dumps({**told, "called": made, "fit": fit, "seconds": round(time.monotonic() - began)}), flush=True
            )
            if call is ringwall and fit < made:
                short.append(f"{category}: calls that do not fit their schema")
        if right["ringwall"] < max(right.values()):
            short.append(f"{category}: a peer is right more often")
    print(json.dumps({"verdict": "short" if short else "met", "missed": short}))
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
