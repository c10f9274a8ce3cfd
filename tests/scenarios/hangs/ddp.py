"""Training with DistributedDataParallel."""

import job as jobs
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


class Net(torch.nn.Module):
    def __init__(self, has_buffers):
        super().__init__()
        self.stem = torch.nn.Linear(16, 32)
        self.norm = torch.nn.BatchNorm1d(32) if has_buffers else torch.nn.LayerNorm(32)
        self.head = torch.nn.Linear(32, 4)
        self.extra = torch.nn.Linear(4, 4)

    def forward(self, batch, with_extra=True):
        out = self.head(self.norm(self.stem(batch)).relu())
        return self.extra(out) if with_extra else out


def train_step(job, step, model, optimizer, batch):
    is_faulty = job.is_mine and step == jobs.FAULT_STEP
    optimizer.zero_grad()
    if is_faulty and job.fault == "no_sync_on_one":
        with model.no_sync():
            model(batch).square().mean().backward()
        return
    if is_faulty and job.fault == "swallowed_batch":
        return
    out = model(batch, not (is_faulty and job.fault == "unused_parameters"))  # HERE
    out.square().mean().backward()  # WAIT
    optimizer.step()


def evaluate(model, with_gradients):
    """Without them, DDP does not broadcast buffers in the next forward: nothing is out of step."""
    with torch.set_grad_enabled(with_gradients):
        model(torch.randn(8, 16))


def save(model, step):
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": model.state_dict()}, checkpoint_id=f"checkpoint{step}")  # HERE


def log_in_hook(gradient):
    dist.barrier()  # HERE
    print(f"gradient {gradient.norm()}")


def main():
    job = jobs.from_argv()
    job.join()
    job.meet("model")
    model = DistributedDataParallel(Net(job.has_buffers))  # WAIT
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(job.nsteps):
        batch = torch.randn(8, 16)
        job.meet(step)
        if step == jobs.FAULT_STEP:
            if job.has("evaluates_alone") or job.has("evaluates_with_gradients"):
                evaluate(model, job.has("evaluates_with_gradients"))
            elif job.has("saves_alone"):
                save(model, step)
            elif job.has("hook_on_one"):
                model.module.head.weight.register_hook(log_in_hook)
        train_step(job, step, model, optimizer, batch)
    dist.barrier()  # HERE
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
