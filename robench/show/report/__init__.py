"""The page of a report, the files beside it, and the index of many."""
