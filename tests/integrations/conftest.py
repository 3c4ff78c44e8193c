"""Each test starts from the same seed, in a folder of its own, on one thread: the models are too small for more."""

import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched

try:
    import torchvision  # noqa: F401  what timm and transformers import, though nothing here uses it
except ImportError:
    pass
except RuntimeError:  # one for CUDA, whose library does not load beside a CPU's torch; its Python asks for two of the operators
    for name in "nms", "qnms":
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
