"""Results as files: written once, sealed, shared by several runs; where making and showing meet."""
