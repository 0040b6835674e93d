"""The ways to drive units: the processes of this machine, or a Ray cluster."""
