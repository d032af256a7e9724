"""What whole processes cost."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROBENCH = shutil.which("robench") or str(Path(sys.executable).with_name("robench"))


def cpu_seconds(*command: str, **environment: str) -> float:
    """CPU seconds of a command and of all that it starts. Raises CalledProcessError if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall_seconds(*command: str) -> float:
    """Seconds by the clock that a command takes. Raises CalledProcessError if it fails."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started
