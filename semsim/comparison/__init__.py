"""Comparing schemes on the same items: paired differences, gains, Bjontegaard deltas, tables."""
