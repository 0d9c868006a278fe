"""LlamaIndex' ordinary retriever: `VectorStoreIndex` over its own store. Task on stdin, rankings on stdout."""

import json
import sys
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode


class Known(BaseEmbedding):
    """The vectors that every subject of this comparison is given."""

    vectors: dict[str, list[float]]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.vectors[text]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.vectors[query]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self.vectors[query]


task: dict[str, Any] = json.load(sys.stdin)
nodes = [TextNode(id_=id, text=text, embedding=task["vectors"][text]) for id, text in task["documents"].items()]
index = VectorStoreIndex(nodes, embed_model=Known(vectors=task["vectors"]))
retriever = index.as_retriever(similarity_top_k=task["k"])
found = {id: [match.node.node_id for match in retriever.retrieve(text)] for id, text in task["queries"].items()}
json.dump({"llamaindex": found}, sys.stdout)
