"""One vision paper, one file; the core works with this folder removed."""
