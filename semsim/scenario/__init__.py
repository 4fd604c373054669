"""Scenarios: a YAML file, read strictly, checked whole, and turned into links."""
