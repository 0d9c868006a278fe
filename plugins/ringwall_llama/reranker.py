"""Cross-encoders out of GGUF files: a question and a passage read together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import llama_cpp

from ringwall.errors import BadModelFile
from ringwall_llama.encoder import Encoder


class GgufReranker:
    """Scores, as the model's last layer gives them: higher is better, and they compare for one question only.

    For `ringwall.data.Rerank`. Runs in this process. Of question and passage together the first `context` tokens
    count, half of them the question's at most. llama.cpp gives every token the first of BERT's two segments, so a
    model that was trained with both (as those of BERT's own vocabulary mostly are) orders worse than its authors say;
    those of RoBERTa's and XLM-R's family have one.

    May be used from several threads, which take turns. Raises `BadModelFile` for a file that cannot be used, or
    holds no model with one score: an embedding model, a classifier of several classes.
    """

    principal: Final = None

    def __init__(self, model_path: str | Path, *, context: int = 512, threads: int | None = None) -> None:
        path = Path(model_path)
        self._encoder = Encoder(
            path,
            context=context,
            threads=threads,
            batch=1,
            poolings=(llama_cpp.LLAMA_POOLING_TYPE_RANK,),
            kind="reranker",
        )
        if self._encoder.width != 1 or self._encoder.tensors.isdisjoint(("cls.weight", "cls.output.weight")):
            self._encoder.close()
            raise BadModelFile(f"{path} is no reranker", expected="a classifier that gives one score")

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question."""
        scores: list[float] = self._encoder.of_pairs(question, texts)[:, 0].tolist()
        return scores

    def close(self) -> None:
        """Free the model; nothing can be scored afterwards."""
        self._encoder.close()
