"""What is measured, per item."""
