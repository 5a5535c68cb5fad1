"""Devices that are not there: what JAX compiles for a GPU or a TPU on a machine that has neither.

Import this before jax: what is not there is only compiled for, so that jax itself runs on the CPU.
"""

import os
from typing import Any, NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
# Nothing is run, so several processes may compile at once.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from benchmarks.environments import PACKAGES, installed

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072 clock_rate_ghz: 1.98
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "H100"
"""
"""What XLA has to know of an NVIDIA H100 SXM, a text proto."""


class Target(NamedTuple):
    """A topology by the name that its compiler knows, and how many devices it has."""

    platform: str
    topology: str
    devices: int


TARGETS = {
    "h100": Target("gpu", "1x1x1", 1),
    "h100x8": Target("gpu", "1x1x8", 8),
    "v5e": Target("tpu", "v5e:2x2", 1),
    "v5e:2x2": Target("tpu", "v5e:2x2", 4),
    "v5e:2x4": Target("tpu", "v5e:2x4", 8),
    "v5e:8x8": Target("tpu", "v5e:8x8", 64),
    "v5e:16x16": Target("tpu", "v5e:16x16", 256),
    "v5p:2x2x4": Target("tpu", "v5p:2x2x4", 16),
    "v5p:4x4x4": Target("tpu", "v5p:4x4x4", 64),
}


def target(name: str) -> Target:
    """Return a target by name.

    Raises:
      ValueError: an unknown name, or a target whose compiler is not installed here.
    """
    if name not in TARGETS:
        raise ValueError(f"`target` must be one of {', '.join(map(repr, TARGETS))}, got {name!r}")
    found = TARGETS[name]
    if not installed(found.platform):
        raise ValueError(
            f"`target` {name!r} needs the module {PACKAGES[found.platform]!r}, which is not installed here: "
            f"`make compiled-{found.platform}` fills an environment that has it"
        )
    return found


def _topology(name: str) -> Any:
    platform, topology, _ = target(name)
    if platform == "gpu":
        return topologies.get_topology_desc("", "cuda", target_config=H100, topology=topology)
    return topologies.get_topology_desc(topology, "tpu")


def device(name: str) -> jax.sharding.Sharding:
    """Return the placement on one device of a target, which can be compiled for and not run on."""
    return jax.sharding.SingleDeviceSharding(_topology(name).devices[0])


def mesh(name: str, shape: tuple[int, ...] | None = None, axes: tuple[str, ...] = ("data",)) -> Mesh:
    """Return a mesh of the devices of a target, laid out as its compiler suggests."""
    topology, count = _topology(name), target(name).devices
    shape = shape or (count,)
    if count < len(topology.devices):
        laid_out = np.array(topology.devices[:count]).reshape(shape)
    else:
        laid_out = topologies.make_mesh(topology, shape, axes).devices
    return Mesh(laid_out, axes, axis_types=(AxisType.Auto,) * len(axes))
