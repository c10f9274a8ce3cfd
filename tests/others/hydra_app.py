"""An application of hydra: composed configuration, a directory for each job."""

import logging
from pathlib import Path

import hydra
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch.nn.parallel import DistributedDataParallel

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(config.seed)
    model = DistributedDataParallel(torch.nn.Linear(config.width, 1))
    make = getattr(torch.optim, config.optimizer.name)
    optimizer = make(model.parameters(), lr=config.optimizer.lr)
    for step in range(config.steps):
        optimizer.zero_grad()
        loss = model(torch.randn(8, config.width)).square().mean()
        loss.backward()
        optimizer.step()
        log.info("rank %d step %d", rank, step)
        print(f"rank {rank} step {step} loss {loss.item():.7f}")
    output = Path(HydraConfig.get().runtime.output_dir)
    (output / f"used{rank}.yaml").write_text(OmegaConf.to_yaml(config))
    dist.destroy_process_group()
    return loss.item()


if __name__ == "__main__":
    main()
