"""semsim: compose, train, sweep and fairly compare semantic-communication links."""
