"""The command line as tests call it: a process of its own, or, where that makes no difference,
this one, which has imported everything already."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from robench.cli import main


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


def robench_here(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    told = patch.multiple(sys, argv=["robench", *words], excepthook=sys.excepthook)
    with told, chdir(cwd or Path.cwd()), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
