"""torch.compile breaks its graph at a collective, and calls it as it is.

As `torch.compiler.disable` does, but without importing the compiler, which takes a second, and
without a wrapper, which every call would pay for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def keep_out_of_graphs(*functions: Callable[..., Any]) -> None:
    """Have torch.compile neither trace these functions nor what they call."""
    try:
        from torch._C._dynamo import eval_frame
    except ImportError:
        return  # a torch without it
    for function in functions:
        function._torchdynamo_disable = True  # type: ignore[attr-defined] # inside of a graph
        function._torchdynamo_disable_msg = "a collective of distrun.comm"  # type: ignore[attr-defined]
        skip = eval_frame._FrameAction.SKIP
        strategy = eval_frame._FrameExecStrategy(skip, skip)
        eval_frame.set_code_exec_strategy(function.__code__, strategy)
