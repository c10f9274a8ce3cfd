"""The page on notebooks, cell by cell in a kernel of Jupyter, if that is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.unit.docs.pages import ROOT, blocks_of

pytestmark = pytest.mark.skipif(
    not (find_spec("nbclient") and find_spec("ipykernel")), reason="no nbclient, or no ipykernel"
)
_RUNNER = """
import json, sys
import nbformat
from nbclient import NotebookClient

cells = [nbformat.v4.new_code_cell(text) for text in json.load(sys.stdin)]
notebook = nbformat.v4.new_notebook(cells=cells)
NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


def outputs_of(cells: list[str], here: Path) -> list[str]:
    """Run cells in one kernel; return what each shows: its output, or its last value."""
    runtime = {"JUPYTER_RUNTIME_DIR": str(here / "jupyter"), "IPYTHONDIR": str(here / "ipython")}
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        input=json.dumps(cells),
        cwd=here,
        env={**os.environ, **runtime},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return ["".join(map(_text_of, outputs)) for outputs in json.loads(done.stdout)]


def _text_of(output: dict[str, Any]) -> str:
    return str(output.get("text") or output["data"]["text/plain"])


def test_the_cells_of_the_page_run_as_they_stand(tmp_path: Path) -> None:
    cells = [b.text for b in blocks_of(ROOT / "docs" / "notebook.md") if b.language == "python"]
    _, outcome, logs = outputs_of(cells, tmp_path)
    assert outcome == "'succeeded'"
    assert logs == "rank 0: 2 ranks\nrank 1: 2 ranks\n"


_INTERRUPTED = """
import os, signal, threading, time
from pathlib import Path

def interrupt():
    while not Path("ready").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)  # what the square of a notebook does

threading.Thread(target=interrupt).start()
try:
    launch(Job(script="train.py", nproc_per_node=1, grace=5))
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""


def test_the_stop_button_stops_the_ranks_and_the_cell(tmp_path: Path) -> None:
    script = "from pathlib import Path\nimport time\nPath('ready').touch()\ntime.sleep(600)\n"
    (tmp_path / "train.py").write_text(script)
    _, said = outputs_of(["from distrun.api import Job, launch", _INTERRUPTED], tmp_path)
    assert said == "KeyboardInterrupt\n"
    (record,) = (tmp_path / "runs").glob("*/run.json")
    assert json.loads(record.read_text())["outcome"] == "interrupted"


def test_a_kernel_that_is_killed_leaves_no_run(tmp_path: Path) -> None:
    """The fixture `no_process_left` looks for what is left of it."""
    script = "from pathlib import Path\nimport time\nPath('ready').touch()\ntime.sleep(600)\n"
    (tmp_path / "train.py").write_text(script)
    program = (
        "import os, signal, threading, time\nfrom pathlib import Path\n"
        "from distrun.api import Job, launch\n"
        "def die():\n"
        "    while not Path('ready').exists(): time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=die).start()\n"
        "launch(Job(script='train.py', nproc_per_node=1, grace=1))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=100)
    assert done.returncode == -9
    assert (tmp_path / "ready").exists()
