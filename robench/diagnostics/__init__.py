"""Is a model's number to be believed? Checks for gradient masking on the outcomes of a report."""

from robench.diagnostics.diagnose import CHECKS, diagnose
from robench.diagnostics.finding import Alarm, Finding, Verdict

__all__ = ["CHECKS", "Alarm", "Finding", "Verdict", "diagnose"]
