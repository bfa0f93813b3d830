"""libtpu where there is no TPU: set by the commands, not the library.

With libtpu installed (`pip install "charjax[tpu]"`, for `charjax compile`) JAX looks for a
TPU whenever it starts. libtpu then asks a server of Google's cloud what machine this is:
it prints warnings, and where nobody answers it can wait for minutes.
"""

import importlib.util
import os
from pathlib import Path

_ANSWERS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Of any kind: it is not looked for.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}

_PCI = Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"


def answer_for_absent_tpu(devices: Path = _PCI) -> bool:
    """Gives libtpu the answers itself; returns whether it does.

    Not where there may be a TPU (a PCI device of Google's, which `devices` lists), nor
    where the user has told JAX or libtpu what to use.
    """
    told = any(name.startswith(("TPU_", "JAX_FORCE_TPU")) for name in os.environ)
    if told or os.environ.get("JAX_PLATFORMS") or not _installed() or _may_be(devices):
        return False
    os.environ.update(_ANSWERS)
    return True


def _installed() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def _may_be(devices: Path) -> bool:
    try:
        vendors = [path.read_text().strip() for path in devices.glob("*/vendor")]
    except OSError:
        return True
    return _GOOGLE in vendors
