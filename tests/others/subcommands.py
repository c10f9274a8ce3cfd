"""A command line with subcommands, whose options begin as torchrun's own do."""

import argparse
import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def train(args):
    dist.init_process_group("gloo")
    torch.manual_seed(args.seed)
    model = DistributedDataParallel(torch.nn.Linear(args.n, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    losses = []
    for step in range(3):
        loss = model(torch.randn(4, args.n)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        print(f"rank {dist.get_rank()} step {step} loss {loss.item():.7f}")
    if dist.get_rank() == 0:
        name = args.directory / f"{args.run}.json"
        name.write_text(json.dumps({"lr": args.lr, "tags": args.log, "losses": losses}))
    dist.destroy_process_group()


def evaluate(args):
    raise SystemExit(f"no model in {args.directory}")


def main():
    parser = argparse.ArgumentParser(prog="trainer")
    parser.add_argument("--seed", type=int, default=0)
    commands = parser.add_subparsers(dest="command", required=True)
    for function in (train, evaluate):
        command = commands.add_parser(function.__name__)
        command.add_argument("directory", type=Path)
        command.add_argument("--run", default="unnamed")
        command.add_argument("--log", nargs="*")
        command.add_argument("--n", type=int, default=4)
        command.add_argument("--lr", type=float, default=0.1)
        command.set_defaults(function=function)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
