"""People look at what a system found: the queue, its record, and proofs of both."""
