"""The peak memory of a process, for the workers of all libraries: it imports nothing of them."""

import re
from pathlib import Path


def peak_memory_mib() -> float:
    """Of this process alone, from Linux's own account.

    What resource.getrusage says begins at the memory of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
