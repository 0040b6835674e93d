"""Ways to have units answered: by processes of this machine, or by a cluster."""
