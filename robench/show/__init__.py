"""What results say: intervals, ranks, claims, verdicts and pages, without torch and without
plugins."""
