"""One scheme, one file, both ends."""
