"""Rows as figures, picture strips, a report and a table on the terminal."""
