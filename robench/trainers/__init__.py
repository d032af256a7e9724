"""Learning rules, one in each file, readable beside its paper."""
