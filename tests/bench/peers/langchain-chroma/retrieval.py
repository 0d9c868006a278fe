"""LangChain's ordinary retriever: a Chroma vector store, `similarity_search`. Task on stdin, rankings on stdout."""

import json
import sys

from langchain_chroma import Chroma
from langchain_core.embeddings import Embeddings


class Known(Embeddings):
    """The vectors that every subject of this comparison is given."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self._vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vectors[text]


task = json.load(sys.stdin)
ids, texts = list(task["documents"]), list(task["documents"].values())
store = Chroma(embedding_function=Known(task["vectors"]))
for first in range(0, len(ids), 1000):
    store.add_texts(texts[first : first + 1000], [{"id": id} for id in ids[first : first + 1000]])
found = {
    id: [document.metadata["id"] for document in store.similarity_search(text, k=task["k"])]
    for id, text in task["queries"].items()
}
json.dump({"langchain-chroma": found}, sys.stdout)
