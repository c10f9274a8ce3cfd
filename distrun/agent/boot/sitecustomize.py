"""Runs distrun's part of a process before the user's script, invisibly to it.

A warm agent and a cold rank are started as `python -u recipe.py args`, with this directory first
on PYTHONPATH: the interpreter imports `sitecustomize`, and so this file, before it turns
to the script. An agent runs and ends in here. A rank, forked from it, returns, and the
interpreter runs the script as always, without frames of a launcher: with its own
`__main__`, traceback, exit code and end.

https://docs.python.org/3/library/site.html describes how `sitecustomize` is found and what
can fail in it.
"""

import json
import os
import site
import sys

_here = os.path.dirname(__file__)  # noqa: PTH120 - the user may have a pathlib of their own
_order = json.loads(os.environ.pop("DISTRUN_BOOT"))

# Put everything back as it would be without us, and run the user's own sitecustomize.
sys.path.remove(_here)
sys.path_importer_cache.pop(_here, None)
_root = os.path.dirname(os.path.dirname(os.path.dirname(_here)))  # noqa: PTH120
_found = [at for at, path in enumerate(sys.path) if os.path.isdir(f"{path}/distrun")]  # noqa: PTH112
if not _found:  # not installed for this interpreter: last, to hide nothing of the user's
    sys.path.append(_root)
elif os.path.exists(f"{_root}/bootstrap.lock"):  # noqa: PTH110 - agent/unpack.py: sent for this run
    sys.path.insert(_found[0], _root)
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
    # The error that site expects where there is none.
    raise ImportError("no module named 'sitecustomize'", name="sitecustomize")
