"""The command line as tests call it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def robench(
    *words: str, cwd: Path | None = None, timeout: int = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`robench WORDS` in the folder `cwd`; its output as text, and its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "robench", *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
