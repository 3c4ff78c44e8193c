"""The GPU of the tests marked gpu: the machine's, or with TEST_GPU=simulated the one of tests/simulated, which needs none."""

import os

import torch

KIND = os.environ.get("TEST_GPU", "cuda")
if KIND == "simulated":
    import simulated

    simulated.install()
module = torch.get_device_module(KIND)
DEVICE = torch.device(KIND, 0)
EXISTS = module.is_available()
