"""Where a script believes it is."""

import os
import sys

import sibling

print(sys.argv)
print(sys.orig_argv[2:])
print(__file__)
print(__loader__.path)
print(sys.path[0])
print(sibling.__file__)
print(os.getcwd())
print(sys._getframe().f_code.co_filename)
raise RuntimeError("where am I?")
