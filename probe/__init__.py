"""What is tried on the cache: probes, on a CPU, in seconds."""
