"""The report of a run: one self-contained HTML page, with the same numbers as files beside it."""

from __future__ import annotations

from robench.report.builder import Claim, Verdict, write_report

__all__ = ["Claim", "Verdict", "write_report"]
