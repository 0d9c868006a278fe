"""An OpenAI-compatible embeddings server on loopback, behind which llama.cpp computes: llama-cpp-python's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from llama_cpp.server.app import create_app
from llama_cpp.server.settings import ModelSettings, ServerSettings


@contextmanager
def serving_embeddings(model: Path, *, key: str) -> Iterator[str]:
    """Serve the GGUF embedder from a thread of its own, to whoever shows the key; gives the `base_url`."""
    settings = ModelSettings(model=str(model), embedding=True, n_ctx=512, n_batch=512, n_threads=1, verbose=False)
    app = create_app(server_settings=ServerSettings(api_key=key), model_settings=[settings])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", access_log=False, ws="none"))
    listening = server.config.bind_socket()
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
