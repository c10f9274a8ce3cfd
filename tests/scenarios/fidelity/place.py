"""Where a script believes it is."""

import sys
from pathlib import Path

import sibling

print(sys.argv)
print(sys.orig_argv[2:])
print(__file__)
print(__loader__.path)
print(sys.path[0])
print(sibling.__file__)
print(Path.cwd())
print(sys._getframe().f_code.co_filename)
raise RuntimeError("where am I?")
