"""Training with gradients reduced by hand."""

import job as jobs
import torch
import torch.distributed as dist


def train_step(model, batch):
    model.zero_grad()
    model(batch).square().mean().backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)  # WAIT
        parameter.data -= 0.01 / dist.get_world_size() * parameter.grad


def main():
    job = jobs.from_argv()
    job.join()
    job.meet("model")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    for parameter in model.parameters():
        dist.broadcast(parameter.data, 0)  # WAIT
    for step in range(job.nsteps):
        batch = torch.randn(8, 16)
        job.meet(step)
        train_step(model, batch)
    dist.barrier()  # HERE
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
