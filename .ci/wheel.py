"""What a stranger gets who installs the wheel and no extra. Run by that environment's own Python, with -I."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

HEAVY = {
    "casbin",
    "chromadb",
    "defusedxml",
    "dishka",
    "docx",
    "httpx",
    "langchain_core",
    "langsmith",
    "llama_cpp",
    "lxml",
    "numpy",
    "onnx",
    "onnxruntime",
    "openpyxl",
    "pptx",
    "pypdfium2",
    "safetensors",
    "selectolax",
    "sqlalchemy",
    "stamina",
    "tokenizers",
    "wordllama",
}
"""What plugins need, and what the core needs only later: `import ringwall` must load none of it."""

TIMED_IMPORT = """
import sys, time
start = time.process_time()
import ringwall
print((time.process_time() - start) * 1000, *{name.partition(".")[0] for name in sys.modules})
"""


def fresh_import() -> tuple[float, set[str]]:
    """CPU milliseconds of `import ringwall` in a fresh process, and the top-level packages it loaded."""
    milliseconds, *packages = subprocess.check_output([sys.executable, "-I", "-c", TIMED_IMPORT], text=True).split()
    return float(milliseconds), set(packages)


def main() -> None:
    """Import, measure, look for what must be in the wheel, and start the command line."""
    runs = [fresh_import() for _ in range(5)]
    loaded = HEAVY & runs[0][1]
    assert not loaded, f"`import ringwall` loads {sorted(loaded)}"
    print(f"import ringwall: {min(ms for ms, _ in runs):.0f} ms CPU (best of {len(runs)})")

    package = files("ringwall")
    assert package.joinpath("py.typed").is_file(), "the wheel lacks ringwall/py.typed"
    assert package.joinpath("_examples", "dinner_assistant").is_dir(), "the wheel lacks the example"
    wheel = distribution("ringwall")
    assert wheel.metadata["License-Expression"] == "Apache-2.0"
    plugins = [entry for entry in wheel.entry_points if entry.group.startswith("ringwall.")]
    assert plugins, "the wheel offers no plugin"
    print("plugins offered:", ", ".join(sorted(f"{entry.group}:{entry.name}" for entry in plugins)))
    subprocess.check_output([Path(sys.executable).with_name("ringwall"), "--help"])
    print("The wheel stands on its own.")


if __name__ == "__main__":
    main()
