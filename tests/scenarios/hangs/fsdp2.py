"""Training with FSDP2: each layer and then the root are sharded."""

import job as jobs
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard


def train_step(job, step, model, optimizer, batch):
    if step == jobs.FAULT_STEP and job.has("swallowed_batch"):
        return
    optimizer.zero_grad()
    loss = model(batch).square().mean()  # WAIT
    loss.backward()
    optimizer.step()


def evaluate(model):
    with torch.no_grad():
        model(torch.randn(8, 16))  # HERE


def save(model, step):
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": model.state_dict()}, checkpoint_id=f"checkpoint{step}")  # HERE


def save_whole(model, step):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    whole = StateDictOptions(full_state_dict=True)
    torch.save(get_model_state_dict(model, options=whole), f"model{step}.pt")  # HERE


def log_gradients(model):
    norms = [p.grad.norm().full_tensor().item() for p in model.parameters()]  # HERE
    print(f"gradients {max(norms)}")


def main():
    job = jobs.from_argv()
    job.join()
    job.meet("model")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    for layer in (model[0], model[2]):
        fully_shard(layer)
    fully_shard(model)  # WAIT
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(job.nsteps):
        batch = torch.randn(8, 16)
        job.meet(step)
        train_step(job, step, model, optimizer, batch)
        if step == jobs.FAULT_STEP:
            if job.has("evaluates_alone"):
                evaluate(model)
            elif job.has("saves_alone"):
                save(model, step)
            elif job.has("saves_whole_alone"):
                save_whole(model, step)
            elif job.has("logs_gradients_alone"):
                log_gradients(model)
    dist.barrier()  # HERE
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
