"""One vision paper, one folder; the core works with this folder removed."""
