"""`python -m distrun.estimate.tracer`: reads one order on stdin, writes one answer on stdout."""

from __future__ import annotations

import faulthandler
import os
import sys

from distrun.processes import die_with_parent


def main() -> None:
    """Trace what the order says. What the script prints goes to stderr."""
    die_with_parent(os.getppid())
    faulthandler.enable()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        text = sys.stdin.read()

        from distrun.estimate.exchange import order_from, told
        from distrun.estimate.tracer.program import answer_to

        answers.write(told(answer_to(order_from(text))))
    os._exit(0)  # no destructor of a half-finished step


if __name__ == "__main__":
    main()
