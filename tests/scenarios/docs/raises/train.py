"""A batch that is too small for one rank."""

import os

import torch
import torch.distributed as dist


def batch_of(rank: int) -> torch.Tensor:
    return torch.ones(3 if rank == 5 else 4, 10)


def main() -> None:
    dist.init_process_group("gloo")
    batch = batch_of(int(os.environ["RANK"]))
    if len(batch) != 4:
        raise ValueError(f"batch of {len(batch)}, not of 4")
    dist.all_reduce(batch)


if __name__ == "__main__":
    main()
