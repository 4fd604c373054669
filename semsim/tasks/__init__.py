"""What the received thing is good for."""
