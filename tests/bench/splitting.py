"""How fast texts are split: `python tests/bench/splitting.py [FILE...]`, one JSON line.

MB of Markdown per CPU second, best of three: Ringwall's `split` and LangChain's recursive splitter by characters;
Ringwall by the tokens of both embedders, and `semantic_text_splitter`'s own Markdown splitter by the same tokens;
and these tokens counted once, which is the floor. By default the text is these documents.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from semantic_text_splitter import MarkdownSplitter

import environments
from ringwall import plugins
from ringwall.data import CountsTokens, split
from ringwall_splitting import by_tokens

TOKENS: Final = 256
LANGCHAIN: Final = "langchain-splitters"
DOCUMENTS: Final = sorted((environments.ROOT / "docs").rglob("*.md"))


def seconds(cut: Callable[[str], Sequence[Any]], texts: Sequence[str]) -> float:
    """CPU seconds of the fastest of three."""
    measured = []
    for _ in range(3):
        began = time.process_time()
        for text in texts:
            cut(text)
        measured.append(time.process_time() - began)
    return min(measured)


def langchain(text: str) -> float:
    """CPU seconds of LangChain's splitter, in an environment of its own."""
    if not environments.is_ready(LANGCHAIN):
        environments.build(LANGCHAIN)
    script = environments.PEERS / LANGCHAIN / "splitting.py"
    command = [str(environments.python_of(LANGCHAIN)), "-W", "ignore", str(script)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["seconds"])


def of_embedder(name: str, texts: Sequence[str]) -> dict[str, float]:
    """CPU seconds by this embedder's tokens: ours, the library's own, and counting alone, paragraph by paragraph."""
    embedder: CountsTokens = plugins.find("embeddings", name)()
    library = MarkdownSplitter.from_callback(embedder.tokens, TOKENS)

    def count(text: str) -> list[int]:
        return [embedder.tokens(paragraph) for paragraph in text.split("\n\n")]

    return {
        f"ringwall {name}": seconds(by_tokens(embedder.tokens, TOKENS).of("a.md"), texts),
        f"library {name}": seconds(library.chunk_indices, texts),
        f"counted once {name}": seconds(count, texts),
    }


def main() -> None:
    """Measure; exits with 1 where ours by tokens is slower than the library's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", default=DOCUMENTS)
    texts = [path.read_text(encoding="utf-8") for path in parser.parse_args().files]
    spent = {"split": seconds(split, texts), "langchain recursive": langchain("\n\n".join(texts))}
    for name in ("wordllama", "minilm"):
        spent |= of_embedder(name, texts)
    size = sum(len(text.encode()) for text in texts) / 1e6
    rates = {name: round(size / took, 2) for name, took in spent.items()}
    print(json.dumps({"bench": "splitting", "mb": round(size, 2), "tokens": TOKENS, "mb_per_cpu_s": rates}))
    sys.exit(1 if any(rates[f"ringwall {n}"] < rates[f"library {n}"] for n in ("wordllama", "minilm")) else 0)


if __name__ == "__main__":
    main()
