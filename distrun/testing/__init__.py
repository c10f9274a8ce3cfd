"""Tests of code that runs on several ranks: no launcher, no ports.

    from distrun.testing import run_ranks

    def test_mean():
        results = run_ranks(lambda world: world.all_reduce(torch.ones(2), "mean"), world_size=4)

With pytest, `@pytest.mark.ranks(2, 4)` and an argument `world` do the same.
"""

from distrun.testing import faults
from distrun.testing.failure import RankFailure, RanksFailed, RanksTimedOut
from distrun.testing.ranks import run_ranks, warm_up


def __dir__() -> list[str]:
    return __all__


__all__ = ["RankFailure", "RanksFailed", "RanksTimedOut", "faults", "run_ranks", "warm_up"]
