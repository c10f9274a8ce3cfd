"""Errors of tensors, models and their checkpoints, for real: see errors.py."""

import io

import torch
from torch import nn
from torch.utils.data import DataLoader


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def checkpoint_of_cuda():
    from unittest import mock

    data = io.BytesIO()
    with mock.patch("torch.serialization.location_tag", lambda _: "cuda:0"):
        torch.save(torch.ones(1), data)
    torch.load(io.BytesIO(data.getvalue()))


def devices_differ():
    print(torch.ones(2, 2) + torch.ones(2, 2, device="meta"))


def features():
    nn.Linear(4, 2)(torch.ones(3, 5))


def batch_sizes():
    nn.functional.cross_entropy(torch.ones(4, 3), torch.zeros(5, dtype=torch.long))


def uneven_samples():
    list(DataLoader([torch.ones(1), torch.ones(2)], batch_size=2))


def no_broadcast():
    print(torch.ones(3) + torch.ones(4))


def scalar_type():
    torch.ones(1, 2, 2).bmm(torch.ones(1, 2, 2, dtype=torch.float64))


def layer_norm_dtypes():
    nn.functional.layer_norm(torch.ones(2, 2), (2,), torch.ones(2, dtype=torch.float64))


def attention_dtypes():
    x = torch.ones(1, 1, 2, 2)
    nn.functional.scaled_dot_product_attention(x, x.double(), x)


def vectors():
    torch.ones(2, dtype=torch.float64).dot(torch.ones(2))


def linear_dtypes():
    nn.Linear(2, 2)(torch.ones(1, 2, dtype=torch.float64))


def conv_dtypes():
    nn.Conv2d(1, 1, 1)(torch.ones(1, 1, 2, 2, dtype=torch.float64))


def in_place():
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    y.add_(1)
    y.sum().backward()


def backward_twice():
    y = torch.ones(2, requires_grad=True).exp().sum()
    y.backward()
    y.backward()


def nothing_requires_grad():
    torch.ones(1).sum().backward()


def no_scalar():
    torch.ones(2, requires_grad=True).exp().backward()


def inference_tensor():
    with torch.inference_mode():
        x = torch.ones(2)
    (x * torch.ones(2, requires_grad=True)).sum().backward()


def batch_norm_of_one():
    nn.BatchNorm1d(2)(torch.ones(1, 2))


def label_out_of_range():
    nn.functional.cross_entropy(torch.ones(1, 3), torch.tensor([10]))


def embedding_out_of_range():
    nn.Embedding(2, 2)(torch.tensor([5]))


def meta_tensor():
    nn.Linear(2, 2, device="meta").to("cpu")


def keys_of_ddp():
    model = nn.Linear(2, 2)
    model.load_state_dict({f"module.{k}": v for k, v in model.state_dict().items()})


def keys_of_compile():
    model = nn.Linear(2, 2)
    model.load_state_dict({f"_orig_mod.{k}": v for k, v in model.state_dict().items()})


def sizes_of_a_checkpoint():
    nn.Linear(2, 2).load_state_dict(nn.Linear(3, 3).state_dict())


def keys_of_another():
    nn.Linear(2, 2).load_state_dict(Two().state_dict())


def optimizer_of_another():
    one, other = (torch.optim.SGD(model.parameters()) for model in (nn.Linear(2, 2), Two()))
    one.load_state_dict(other.state_dict())


class Custom:
    pass


def weights_only():
    data = io.BytesIO()
    torch.save(Custom(), data)
    torch.load(io.BytesIO(data.getvalue()))


def cut_checkpoint():
    data = io.BytesIO()
    torch.save(torch.ones(1000), data)
    torch.load(io.BytesIO(data.getvalue()[:2000]))
