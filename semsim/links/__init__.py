"""Links that are more than a transmitter, a channel and a receiver in a row."""
