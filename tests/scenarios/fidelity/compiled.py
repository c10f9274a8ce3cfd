"""torch.compile: g++ for the kernel, and the pool of processes that inductor keeps."""

import os

import torch
from torch._inductor import config
from torch._inductor.async_compile import AsyncCompile

config.cpp.simdlen = 0  # the headers for vectors take g++ seconds


@torch.compile
def curve(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) ** 2 + torch.cos(x) ** 2


if __name__ == "__main__":
    print([round(value, 5) for value in curve(torch.arange(8.0)).tolist()])
    print("graphs", torch._dynamo.utils.counters["stats"]["unique_graphs"])
    print("another process", AsyncCompile.process_pool().submit(os.getpid).result() != os.getpid())
