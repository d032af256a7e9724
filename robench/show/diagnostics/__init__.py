"""Is a model's number to be believed? Checks for gradient masking on the outcomes of a report."""
