"""Files: what is written whole, what is checked before it is read, code from outside."""
