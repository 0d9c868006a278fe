"""The scene in plain Python, without any framework: the floor under every figure."""

from __future__ import annotations

import json
from typing import Final

import scene
from harness import Run

Message = dict[str, str]


def model(messages: list[Message]) -> Message:
    """Propose the tool when the question comes alone; answer once the tool has, or when there is context."""
    last = messages[-1]
    if last["role"] == "user" and last["content"] == scene.QUESTION:
        return {"role": "assistant", "tool": scene.TOOL_NAME, "arguments": scene.TOOL_ARGUMENTS_JSON}
    return {"role": "assistant", "content": scene.ANSWER}


TOOLS: Final = {scene.TOOL_NAME: scene.weather}


def rag() -> str:
    """Retrieve, build the prompt, answer."""
    return model([{"role": "user", "content": scene.rag_prompt(list(scene.DOCUMENTS))}])["content"]


def act(call: Message) -> Message:
    """Run the proposed tool."""
    return {"role": "tool", "content": TOOLS[call["tool"]](**json.loads(call["arguments"]))}


def agent() -> str:
    """Let the model propose the tool, run it, let the model answer."""
    messages: list[Message] = [{"role": "user", "content": scene.QUESTION}]
    while "tool" in (reply := model(messages)):
        messages += [reply, act(reply)]
    return reply["content"]


FLOORS: Final[dict[str, Run]] = {"rag": rag, "agent": agent}


def of(run: str) -> Run:
    """Find the floor of a run by the first word of its name."""
    return FLOORS[run.partition("_")[0]]
