"""distrun launches PyTorch training on a laptop and on a cluster.

Importing this package imports nothing heavy: each part has its own subpackage, see
docs/architecture.md.
"""

__version__ = "0.1.0"
