"""All benchmarks on one page.

    pytest tests/benchmarks -o addopts= --performance reports/performance

writes FOLDER/results.json and FOLDER/index.html. Tables that were not measured this time stay as
they are, each with the machine that it was measured on.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from performance import write_page

TABLES = pytest.StashKey[dict[str, dict[str, Any]]]()

Tabled = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--performance", type=Path, metavar="FOLDER", help="write the tables there")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLES] = {}


@pytest.fixture
def tabled(request: pytest.FixtureRequest) -> Tabled:
    """Print a table of milliseconds and keep it for the page.

    tabled(title, about, {side: seconds}, floor=side that ratios are to, notes={side: text})
    """

    def keep(
        title: str,
        about: str,
        seconds: Mapping[str, float],
        floor: str,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        rows = [
            {
                "side": side,
                "ms": 1e3 * value,
                "ratio": value / seconds[floor],
                "note": (notes or {}).get(side, ""),
            }
            for side, value in seconds.items()
        ]
        request.config.stash[TABLES][title] = {
            "about": about,
            "rows": rows,
            "test": request.node.nodeid.split("[")[0],
            "machine": machine(on_gpu=title.startswith("GPU")),
        }
        print(f"\n{title}")
        for row in rows:
            print("  {side:32} {ms:10.2f} ms {ratio:7.2f}x  {note}".format(**row))

    return keep


def machine(on_gpu: bool = False) -> str:
    """Processor, cores and versions, in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = names[0].split(":", 1)[1].strip() if names else name
    if on_gpu:
        name = f"{torch.cuda.get_device_name()}, {name}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{name}, {os.cpu_count()} cores, {versions}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    folder: Path | None = session.config.getoption("--performance")
    measured = session.config.stash[TABLES]
    if folder is not None and measured:
        write_page(folder, measured)
        sys.stdout.write(f"\npage: {folder / 'index.html'}\n")
