"""`robench check`: contract tests of cards and plugins, one file for each kind."""
