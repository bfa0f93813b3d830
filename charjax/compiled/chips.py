"""What is known of devices: memory, bandwidth, peaks, and how a compiler is told of them.

A table of facts. `memory` and the rates are those of one chip; a TPU chip may be two
devices to JAX, which then share them.
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One kind of chip; each number as its maker gives it."""

    name: str

    memory: int
    """Bytes."""

    bandwidth: float
    """Of that memory, bytes a second."""

    bfloat16: float
    """Floating-point operations of matrix products a second, bfloat16 operands, dense."""

    float32: float
    """The same where the operands are float32, at JAX's default precision: a TPU rounds
    them to bfloat16, a GPU to tf32."""

    link: float
    """Bytes a second to the other chips, both directions together."""

    source: str

    clock: float | None = None
    """Cycles a second of a TPU's matrix units; bfloat16 is so many times what they do."""

    multiprocessors: "Multiprocessors | None" = None
    """Of a GPU."""


@dataclass(frozen=True)
class Multiprocessors:
    """What XLA's compiler for GPUs asks of one."""

    device: str
    """As the driver names it."""

    capability: tuple[int, int]
    count: int
    float32_units: int
    shared_memory: int
    """Bytes in each."""

    clock_ghz: float
    l2_cache: int
    """Bytes in all."""


_CLOUD = "cloud.google.com/tpu/docs, system architecture"

TPUS: dict[str, Chip] = {
    "v2": Chip("TPU v2", 16 * GIB, 700e9, 46e12, 46e12, 248e9, _CLOUD, 0.70e9),
    "v3": Chip("TPU v3", 32 * GIB, 900e9, 123e12, 123e12, 328e9, _CLOUD, 0.94e9),
    "v4": Chip("TPU v4", 32 * GIB, 1228e9, 275e12, 275e12, 300e9, _CLOUD, 1.05e9),
    "v5e": Chip("TPU v5e", 16 * GIB, 819e9, 197e12, 197e12, 200e9, _CLOUD, 1.50e9),
    "v5p": Chip("TPU v5p", 95 * GIB, 2765e9, 459e12, 459e12, 600e9, _CLOUD, 1.75e9),
    "v6e": Chip("TPU v6e", 32 * GIB, 1640e9, 918e12, 918e12, 448e9, _CLOUD, 1.75e9),
    "tpu7x": Chip("TPU7x", 192 * GIB, 7380e9, 2307e12, 2307e12, 1200e9, _CLOUD, 2.20e9),
}
"""By the name that stands before the colon of a topology. The clocks follow from the peak
and the size of the matrix units."""

GPUS: dict[str, Chip] = {
    "h100": Chip(
        *("H100 SXM 80 GB", 80 * GIB, 3.35e12, 989e12, 495e12, 900e9),
        source="NVIDIA H100 datasheet; Hopper tuning guide",
        multiprocessors=Multiprocessors(
            *("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 228 * 1024, 1.98, 50 * 2**20)
        ),
    ),
    "a100": Chip(
        *("A100 SXM 80 GB", 80 * GIB, 2.04e12, 312e12, 156e12, 600e9),
        source="NVIDIA A100 datasheet; Ampere tuning guide",
        multiprocessors=Multiprocessors(
            *("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 164 * 1024, 1.41, 40 * 2**20)
        ),
    ),
}


def target_config(chip: Chip) -> str:
    """A GPU as XLA's compiler wants it described: a GpuTargetConfig, as protocol text.

    >>> print(target_config(GPUS["h100"]).splitlines()[6].strip())
    core_count: 132
    """
    units = chip.multiprocessors
    assert units is not None
    major, minor = units.capability
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {units.shared_memory}
  threads_per_core_limit: 2048
  core_count: {units.count}
  fpus_per_core: {units.float32_units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {chip.bandwidth:.0f}
  l2_cache_size: {units.l2_cache}
  clock_rate_ghz: {units.clock_ghz}
  device_memory_size: {chip.memory}
  shared_memory_per_block_optin: {units.shared_memory - 1024}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{units.device}"
"""
