"""What a cell asks its network beside its own question, so that the checks of a page have something
to look at."""
