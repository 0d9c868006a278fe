"""Haystack's two ordinary retrievers over its own store. Task on stdin, rankings on stdout."""

import json
import sys

from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

task = json.load(sys.stdin)
vectors, k = task["vectors"], task["k"]
store = InMemoryDocumentStore(embedding_similarity_function="cosine")
store.write_documents([Document(id=id, content=t, embedding=vectors[t]) for id, t in task["documents"].items()])
dense, lexical = InMemoryEmbeddingRetriever(store, top_k=k), InMemoryBM25Retriever(store, top_k=k)
queries = task["queries"].items()
found = {
    "haystack": {id: [d.id for d in dense.run(query_embedding=vectors[text])["documents"]] for id, text in queries},
    "haystack-bm25": {id: [d.id for d in lexical.run(query=text)["documents"]] for id, text in queries},
}
json.dump(found, sys.stdout)
