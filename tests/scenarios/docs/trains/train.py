"""Trains a layer on every rank, and averages its gradients."""

import torch
import torch.distributed as dist

from distrun.train import metrics


def main() -> None:
    dist.init_process_group("gloo")
    weight = torch.zeros(10, 1, requires_grad=True)
    for step in range(1, 4):
        loss = (torch.ones(4, 10) @ weight - 1).square().mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        dist.all_reduce(gradient)
        with torch.no_grad():
            weight -= 0.01 * gradient / dist.get_world_size()
        metrics.log(step, loss=loss.item())
        if dist.get_rank() == 0:
            print(f"step {step}/3  loss {loss.item():.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
