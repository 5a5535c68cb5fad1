"""Record what timm's and kozistr's optimizers do with a corrected weight decay, into corrected.json beside this file.

Run with torch, timm and pytorch_optimizer installed (they are not needed by the tests). Everything is float64. Both
peers, with gamma_t the rate of update t and gamma_max the rate they were built with:

    theta <- theta (1 - lambda gamma_t^2 / gamma_max)          timm: all leaves; kozistr: groups with normalized=True
    theta <- theta (1 - lambda gamma_t)                        kozistr: all other groups
    theta <- theta - gamma_t Adam's direction

timm adds epsilon to the root of the corrected second moment, kozistr to the root of the raw one (epsilon hat, also
under that root: 1e-15).
"""

import importlib
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import pytorch_optimizer
import torch


def optimizers_of_timm():
    """Import timm.optim.adamw without the models of timm, which need a torchvision that fits."""
    root = importlib.util.find_spec("timm").submodule_search_locations[0]
    for name, path in {"timm": root, "timm.optim": f"{root}/optim"}.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]
    return importlib.import_module("timm.optim.adamw")


RATES = [0.1, 0.08, 0.06, 0.04, 0.02, 0.01]
OPTIONS = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.5}

rng = np.random.default_rng(0)
START = {"dense": rng.normal(size=(2, 3)), "head": rng.normal(size=(3,))}
GRADIENTS = [{name: rng.normal(size=leaf.shape) for name, leaf in START.items()} for _ in RATES]


def run(make):
    params = {name: torch.nn.Parameter(torch.tensor(leaf, dtype=torch.float64)) for name, leaf in START.items()}
    optimizer = make([{"params": [params["dense"]], "normalized": True}, {"params": [params["head"]]}])
    trajectory = []
    for rate, gradients in zip(RATES, GRADIENTS, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, p in params.items():
            p.grad = torch.tensor(gradients[name], dtype=torch.float64)
        optimizer.step()
        trajectory.append({name: p.detach().numpy().tolist() for name, p in params.items()})
    return trajectory


def main():
    adamw_of_timm = optimizers_of_timm().AdamWLegacy
    recorded = {
        "versions": {name: importlib.metadata.version(name) for name in ("timm", "pytorch_optimizer", "torch")},
        "rates": RATES,
        "b1": 0.9,
        "b2": 0.99,
        "weight_decay": 0.5,
        "start": {name: leaf.tolist() for name, leaf in START.items()},
        "gradients": [{name: g.tolist() for name, g in gradients.items()} for gradients in GRADIENTS],
        "timm": run(lambda groups: adamw_of_timm(groups, lr=RATES[0], corrected_weight_decay=True, **OPTIONS)),
        "kozistr": run(lambda groups: pytorch_optimizer.AdamC(groups, lr=RATES[0], **OPTIONS)),
    }
    path = pathlib.Path(__file__).with_name("corrected.json")
    path.write_text(json.dumps(recorded) + "\n")


if __name__ == "__main__":
    main()
