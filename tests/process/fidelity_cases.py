"""The table of scripts that must come out the same under python and under distrun."""

from __future__ import annotations

from tests.process.fidelity import FIDELITY, Case

SIBLING = """
import warnings

def warn(text):
    warnings.warn(text, UserWarning, stacklevel=2)

def warn_itself(text):
    warnings.warn(text, DeprecationWarning)
"""

PLACE = (FIDELITY / "place.py").read_text()
ODD_DIRECTORY = 'it\'s "$HOME" \n ünïcode `x`'
MAIN_FAILS = """
def inner():
    raise KeyError("deep")

def outer():
    try:
        inner()
    except KeyError as error:
        raise ValueError("shallow") from error

"""

CASES = [
    Case("facts", call=("recipe.py", "--lr", "0.1", "--", "-x", ""), prints="__spec__: None"),
    Case(
        "inside",
        files={"sibling.py": SIBLING, "data/numbers.txt": "1 2 3\n"},
        prints="a sibling's caller",
    ),
    Case("pools", prints="forkserver 3"),
    Case("loaders", exit_code=1, prints="no item 0", environ={"OMP_NUM_THREADS": "1"}),
    Case("unclosed", prints="the end of the script"),
    Case(
        "exit handlers that use a process group",
        "import atexit, logging, multiprocessing.util, sys, tempfile, weakref\n"
        "import torch, torch.distributed as dist\n"
        "class Kept: pass\n"
        "def last(by):\n"
        "    x = torch.ones(1)\n"
        "    dist.all_reduce(x)\n"
        "    print(by, x.item())\n"
        "kept = Kept()\n"
        "weakref.finalize(kept, last, 'finalize')\n"
        "multiprocessing.util.Finalize(None, last, args=('multiprocessing',), exitpriority=1)\n"
        "handler = logging.StreamHandler()\n"
        "handler.close = lambda: last('logging')\n"
        "atexit.register(last, 'atexit')\n"
        "with tempfile.TemporaryDirectory() as place:\n"
        "    dist.init_process_group('gloo', f'file://{place}/store', rank=0, world_size=1)\n",
        prints="logging 1.0",
    ),
    Case(
        "an exception in a console of the script's own",
        "import code\ncode.InteractiveInterpreter().runsource('1/0')\nprint('went on')",
        prints="ZeroDivisionError",
    ),
    Case("farewell", exit_code=1, prints="AssertionError: sums"),
    # --- how a script is named ---------------------------------------------------------
    Case(
        "a symlink behind dots",
        files={"far/place.py": PLACE, "far/sibling.py": "", "sub/x": ""},
        links={"link": "far/place.py"},
        call=("./sub/../link", "."),
        exit_code=1,
        prints="where am I?",
    ),
    Case(
        "an unusual name",
        files={f"{ODD_DIRECTORY}/-a %s{{0}} .py": PLACE, f"{ODD_DIRECTORY}/sibling.py": ""},
        call=(f"{ODD_DIRECTORY}/-a %s{{0}} .py", "$HOME", "a b", "ü\n", "*"),
        exit_code=1,
        prints="where am I?",
    ),
    Case(
        "a package by -m",
        files={
            "pkg/__init__.py": "print('init', __name__, __file__)",
            "pkg/__main__.py": (
                "import sys, os\nfrom . import other\n"
                "print(sys.argv, sys.orig_argv[2:], sys.path[0], __name__, __package__)\n"
                "print(__spec__.name, __file__, __cached__, sorted(globals()))\n"
                "print(sys.flags, type(__loader__), os.getcwd())\n"
                "raise SystemExit(5)"
            ),
            "pkg/other.py": "print('other', __name__)",
        },
        call=("-m", "pkg", "--flag", "x"),
        exit_code=5,
        prints="other pkg.other",
    ),
    Case(
        "a module by -m that fails",
        files={
            "pkg/__init__.py": "",
            "pkg/mod.py": (
                "import pickle, sys\nfrom .other import value\n\n"
                "class Here: pass\n\nif __name__ == '__main__':\n"
                "    print(value, sys.argv, type(pickle.loads(pickle.dumps(Here()))))\n"
                "    raise ValueError('in a module')\n"
            ),
            "pkg/other.py": "value = 7",
        },
        call=("-m", "pkg.mod", "1"),
        exit_code=1,
        prints="__main__.Here",
    ),
    # --- what it is given --------------------------------------------------------------
    Case(
        "stdin",
        "import subprocess, sys\n"
        "print(input('name? '), input())\n"
        "print(sys.stdin.readline(), end='')\nbreakpoint()\nx = 7\nprint(x)\n"
        "print(repr(sys.stdin.read()))\n"
        "try:\n    input('more? ')\nexcept EOFError as error:\n    print('', error)",
        stdin="Ada\nLovelace\nthird\nnext\np x\nc\nthe\nrest ü",
        prints="'the\\nrest ü'",
    ),
    Case(
        "python's own variables",
        "import sys, warnings\nprint(sys.fidelity, sys.warnoptions, hash('text'), 'snow \\u2603')\n"
        "print(sys.path, sys.flags.hash_randomization, sys.stdout.encoding)\n"
        "warnings.warn('an error now')",
        files={"site/sitecustomize.py": "import sys\nsys.fidelity = 'sitecustomize was here'\n"},
        environ={
            "PYTHONPATH": "site",
            "PYTHONWARNINGS": "error::UserWarning",
            "PYTHONHASHSEED": "7",
            "PYTHONSAFEPATH": "1",
            "PYTHONIOENCODING": "ascii:backslashreplace",
        },
        exit_code=1,
        prints=r"snow \u2603",
    ),
    Case(
        "stderr is not stdout",
        "import os, sys\nos.dup2(os.open('err', os.O_WRONLY | os.O_CREAT), 2)\n"
        "print('out'); print('err', file=sys.stderr); os.system('echo on 2 >&2')\n"
        "import warnings; warnings.warn('goes to stderr'); input('a prompt ')\n",
        stdin="answer\n",
    ),
    # --- siblings that take the place of modules which torch imports ----------------------
    Case(
        "siblings that shadow the standard library",
        files={
            "sub/recipe.py": "import queue, random\nprint(queue.MINE, random.MINE)\n",
            "sub/queue.py": "MINE = 'my queue'",
            "sub/random.py": "MINE = 'my random'",
        },
        call=("sub/recipe.py",),
        prints="my queue my random",
        starts_cold="replaces a module",
    ),
    # --- how it ends ----------------------------------------------------------------------
    Case("exit with a text", "import sys\nsys.exit('the text')", exit_code=1, prints="the text"),
    Case("exit by the builtin, below 0", "exit(-1)", exit_code=255),
    Case(
        "exit at once",
        "import atexit, os\natexit.register(print, 'never')\nos._exit(7)",
        exit_code=7,
    ),
    Case("a chain of errors", f"{MAIN_FAILS}outer()", exit_code=1, prints="direct cause"),
    Case(
        "a group of errors",
        f"{MAIN_FAILS}try:\n    outer()\nexcept ValueError as error:\n"
        "    error.add_note('a note')\n"
        "    raise ExceptionGroup('two', [error, OSError(2, 'none')])",
        exit_code=1,
        prints="ExceptionGroup",
    ),
    Case(
        "a sibling with a syntax error",
        "import broken",
        files={"broken.py": "def f(:\n    pass\n"},
        exit_code=1,
        prints="SyntaxError",
    ),
    Case(
        "warnings of the compiler, bytes of another encoding",
        "# coding: latin-1\nname = '\u00e9\u00fc'\nif name is 1: pass\n"
        "print(name)\nraise ValueError('\\d\u00e9')",
        exit_code=1,
        prints="SyntaxWarning",
    ),
    Case(
        "an excepthook of the script's own",
        "import sys, traceback\n"
        "def hook(kind, error, tb):\n"
        "    print('hook', kind, error, [f.f_code.co_name for f, _ in traceback.walk_tb(tb)])\n"
        "    print([f.f_code.co_name for f, _ in traceback.walk_tb(error.__traceback__)])\n"
        "    raise LookupError('the hook is broken')\n"
        f"sys.excepthook = hook\n{MAIN_FAILS}outer()",
        exit_code=1,
        prints="Original exception was",
    ),
    Case(
        "an error that cannot be printed",
        "class Odd(BaseException):\n    def __str__(self):\n        raise ValueError\nraise Odd",
        exit_code=1,
        prints="<exception str() failed>",
    ),
    Case(
        "interrupted",
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('once')\nos.kill(os.getpid(), signal.SIGINT)",
        exit_code=130,
        prints="KeyboardInterrupt",
    ),
    Case(
        "killed by a segmentation fault",
        "import os, signal\nprint('before')\nos.kill(os.getpid(), signal.SIGSEGV)",
        exit_code=139,
        prints="before\n",
    ),
    Case(
        "ended by SIGTERM",
        "import os, signal, atexit\natexit.register(print, 'never')\n"
        "os.kill(os.getpid(), signal.SIGTERM)",
        exit_code=143,
    ),
    Case(
        "stdout that cannot be flushed",
        "import sys\nsys.stdout = open('/dev/full', 'w')\nprint('lost')",
        exit_code=120,
        prints="No space left",
    ),
    Case(
        "a forked child that ends like a script",
        "import atexit, os, sys\natexit.register(print, 'atexit in both')\nchild = os.fork()\n"
        "if child == 0:\n    sys.exit(3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\nchild = os.fork()\n"
        "if child == 0:\n    raise ValueError('in the child')\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n",
        prints="in the child",
    ),
    Case(
        "another program in its place",
        "import os, sys\nprint('before')\n"
        "os.execv('/bin/sh', ['sh', '-c', 'ls /proc/self/fd | head -3; cat; exit 9'])",
        stdin="for the shell\n",
        exit_code=9,
        prints="for the shell",
    ),
]
