"""Runs distrun's part of a process before the user's script, and leaves no trace.

A warm agent and a cold rank are started as `python -u recipe.py args`, with this directory first
on PYTHONPATH: the interpreter imports `sitecustomize`, and so this file, before it turns
to the script. Here an agent lives and dies; a rank, forked from it, just returns, and the
interpreter runs the script as it always does, with nothing of a launcher below it: its
own `__main__`, traceback, exit code and end.

https://docs.python.org/3/library/site.html tells how `sitecustomize` is found and what
may go wrong in it.
"""

import json
import os
import site
import sys

_here = os.path.dirname(__file__)  # noqa: PTH120 - pathlib may be one of the user's own
_order = json.loads(os.environ.pop("DISTRUN_BOOT"))

# Put everything back as it would be without us, and run the user's own sitecustomize.
sys.path.remove(_here)
sys.path_importer_cache.pop(_here, None)
import distrun.agent.last_exit  # noqa: E402, F401 - before all that registers an exit handler

if _order["pythonpath"] is None:
    del os.environ["PYTHONPATH"]
else:
    os.environ["PYTHONPATH"] = _order["pythonpath"]
del sys.modules["sitecustomize"]
site.execsitecustomize()

if _order["role"] == "rank":
    from distrun.agent.rank_boot import prepare_cold

    prepare_cold(_order)
else:
    from distrun.agent.main import run_agent

    run_agent(_order, warm=True)

if "sitecustomize" not in sys.modules:
    # What site says to itself where there is none.
    raise ImportError("no module named 'sitecustomize'", name="sitecustomize")
