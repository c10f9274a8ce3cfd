"""DataLoader workers by every start method, on a dataset class of the script's own."""

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info


class Squares(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        info = get_worker_info()
        return torch.tensor([index, index**2, info.id, torch.get_num_threads()])


class Broken(Squares):
    def __getitem__(self, index: int) -> torch.Tensor:
        raise ValueError(f"no item {index}")


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        generator = torch.Generator().manual_seed(7)
        loader = DataLoader(
            Squares(),
            batch_size=2,
            shuffle=True,
            num_workers=2 if method == "fork" else 1,  # each of the others imports torch
            multiprocessing_context=method,
            generator=generator,
        )
        print(method, [batch.tolist() for batch in loader])
    for _ in DataLoader(Broken(), num_workers=1):
        pass
