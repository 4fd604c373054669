"""Training: batches by step, one loop, a state on disk that goes on bit for bit."""
