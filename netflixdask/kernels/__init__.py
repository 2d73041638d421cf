"""Numba kernels: numbers in, numbers out. No Dask, no tables, no disk.

Every kernel is ``nogil=True, cache=True`` and never ``parallel=True``: numba's default threading
layer aborts when two Dask threads enter it, and parallelism comes from tasks.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import llvmlite.binding
import numba
from numba.core import config as numba_config


def cache_dir() -> Path:
    """Return the folder of compiled kernels: one a CPU type, set of versions and state of the code.

    Numba compiles a kernel again when its own file changes, but not when a kernel that it calls
    does, hence the digest of all files.
    """
    digest = hashlib.blake2b(digest_size=6)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    cpu = llvmlite.binding.get_host_cpu_name()
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    if os.environ.get("NETFLIXDASK_PLAIN_KERNELS") == "1":
        cpu += "-plain"  # other functions are called then: see kernels.tiles
    versions = f"numba{numba.__version__}-py{platform.python_version()}"
    return base / "netflixdask" / "kernels" / f"{cpu}-{versions}-{digest.hexdigest()}"


# A cache shared by hosts of different CPUs would be rewritten by each in turn, so its folder is
# named by the CPU. Numba reads the setting when a kernel is declared, hence before any of them.
if not numba_config.CACHE_DIR:
    numba_config.CACHE_DIR = str(cache_dir())
