"""`python -m semsim` is the command `semsim`."""

from semsim.cli import app

app(prog_name="semsim")
