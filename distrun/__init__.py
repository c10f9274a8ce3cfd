"""distrun takes PyTorch training from a laptop to a cluster.

Importing the package is free: everything heavy lives in a room of its own
(the README has the map).
"""

__version__ = "0.1.0"
