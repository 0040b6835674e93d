"""Which images of millions to look at first: the likeliest, least certain, most typical, alike."""
