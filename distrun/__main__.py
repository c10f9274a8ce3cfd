"""`python -m distrun`."""

import sys

# -m puts the current directory first; a random.py of the user's is not ours to import.
del sys.path[0]

from distrun.cli.main import main  # noqa: E402 - after the line above, on purpose

main()
