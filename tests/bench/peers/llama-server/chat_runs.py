"""llama.cpp's own server, without the way over HTTP: as many slots as chats come at once, each keeping its prompt.

The wheel's kernels are those for any x86-64 with AVX2; what it was compiled for is told with the figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp

from chat_times import Answer, serve
from chats import Chat

WINDOW = 2048


def started(setting: dict[str, Any]) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = setting["model"]
    params.n_parallel = setting["slots"]
    params.n_ctx = WINDOW * setting["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setting["threads"]
    params.cache_prompt = params.cont_batching = True
    params.verbosity = 0
    return xllamacpp.Server(params)


def main(setting: dict[str, Any]) -> None:
    server = started(setting)

    def one(chat: Chat, answer: Answer) -> None:
        def take(chunk: dict[str, Any]) -> None:
            for choice in chunk.get("choices", ()):
                if text := choice["delta"].get("content"):
                    answer.add(text)
            if usage := chunk.get("usage"):
                answer.tokens = usage["completion_tokens"]

        body = {
            "messages": [{"role": "system", "content": chat.system}, {"role": "user", "content": chat.question}],
            "max_tokens": chat.tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        server.handle_chat_completions(body, take)

    with ThreadPoolExecutor(setting["slots"]) as threads:

        def ask(chats: Sequence[Chat], answers: Sequence[Answer]) -> None:
            list(threads.map(one, chats, answers))

        serve(ask, about=xllamacpp.get_system_info())


if __name__ == "__main__":
    main(json.loads(sys.argv[2]))
