"""What `ringwall models` shows of GGUF files, and does with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ringwall.model.files import ModelFacts, ModelFiles, Progress, Tuned, TuneOptions, unseen
from ringwall.model.registry import ModelFile, Open
from ringwall_llama.facts import facts_of
from ringwall_llama.fitting import require_room, usual_room
from ringwall_llama.provider import BUNDLED, bundled_file, bundled_sha256
from ringwall_llama.tuning import tune


class GgufFiles(ModelFiles):
    """GGUF files, computed with by llama.cpp."""

    def bundled(self) -> Sequence[Open]:
        file = bundled_file()
        if file is None or file.hash is None or file.size is None:
            return ()
        pinned = ModelFile(Path(str(file.locate())), bundled_sha256(), file.size)
        return (Open("smollm2-135m-instruct", pinned, "Apache-2.0", f"the package {BUNDLED}"),)

    def facts(self, path: Path) -> ModelFacts:
        return facts_of(path)

    def require_room(self, path: Path) -> None:
        window, cells = usual_room(facts_of(path))
        require_room(path, cells=cells, window=window)

    def tune(self, path: Path, options: TuneOptions, progress: Progress = unseen) -> Tuned:
        return tune(path, options, progress)
