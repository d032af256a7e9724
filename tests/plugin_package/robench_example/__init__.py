"""Example plugins: one of every kind. Importing this says so, for the test that nothing does."""

import sys

print("robench_example was imported", file=sys.stderr)
