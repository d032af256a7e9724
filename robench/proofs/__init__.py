"""What holds at every point of a ball: exact answers, bounds, certificates."""
