"""`python -m distrun`."""

import sys

# -m puts the current directory first; do not import a user's random.py from there.
del sys.path[0]

from distrun.cli.main import main  # noqa: E402 - after the line above, on purpose

main()
