"""Where, when and with what a result was made: stored beside it, never part of its identity."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import torch


def provenance(device: torch.device, seconds: float) -> dict[str, Any]:
    """Where, when, with what and for how long: stored beside a result, never part of its
    identity."""
    return {
        "seconds": round(seconds, 4),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(str(device)),
    }


@lru_cache(maxsize=4)
def environment(device: str) -> dict[str, Any]:
    """Hardware and versions of this process, for provenance."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return {
        "device": device,
        "processor": name,
        "capability": torch.backends.cpu.get_cpu_capability(),  # which vector code torch chose
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("robench", "torch", "numpy")},
        **commit(),
    }


@lru_cache(maxsize=1)
def commit() -> dict[str, str]:
    """Which commit of robench runs, and whether its files are as committed; nothing where it was
    installed from a package."""
    package = Path(__file__).resolve().parents[1]

    def git(*asked: str) -> str:
        command = ["git", "-C", str(package), *asked]
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return said.stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):  # no git, or no repository
        if Path(git("rev-parse", "--show-toplevel")) == package.parent:
            changed = git("status", "--porcelain", "--untracked-files=no", "--", str(package))
            head = git("rev-parse", "--short=12", "HEAD")
            return {"commit": head, "tree": "changed" if changed else "as committed"}
    installed = json.loads(distribution("robench").read_text("direct_url.json") or "{}")
    known = installed.get("vcs_info", {}).get("commit_id")
    return {"commit": known[:12], "tree": "as committed"} if known else {}


def _processor() -> str:
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
