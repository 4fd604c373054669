"""Wireless channels for learned links: torch and Sionna, no image, no task, no YAML."""
