"""One rank calls another collective than the others."""

import torch

from distrun import comm


def main() -> None:
    with comm.init() as world:
        if world.rank == 2:
            world.all_reduce(torch.ones(4, 5), "max")
        else:
            world.all_reduce(torch.ones(4, 4))


if __name__ == "__main__":
    main()
