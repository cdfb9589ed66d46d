"""What kube-scheduler and the API server ask, a verb a file: bytes in, bytes out, around one call of the engine."""
