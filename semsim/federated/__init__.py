"""Federated training: clients that keep their data, a server that averages what they learn."""
