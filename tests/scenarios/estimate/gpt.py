"""A loop over a small GPT with learned positions and dropout, for GPUs."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.nn.parallel import DistributedDataParallel


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(128, 3 * 128), nn.Linear(128, 128)

    def forward(self, x):
        heads = self.qkv(x).unflatten(-1, (3, 4, 32)).permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(*heads, dropout_p=0.1, is_causal=True)
        return x + self.out(y.transpose(1, 2).flatten(2))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(512, 128), nn.Embedding(256, 128)
        self.block, self.head = Block(), nn.Linear(128, 16)

    def forward(self, ids):
        return self.head(self.block(self.words(ids) + self.positions(torch.arange(256))))


dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
model = DistributedDataParallel(Gpt().cuda())
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    ids = torch.randint(0, 512, (2, 256), device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        loss = cross_entropy(model(ids).flatten(0, 1), ids.flatten() % 16)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
