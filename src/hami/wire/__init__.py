"""Bytes <-> model. Every format that leaves the process is described here and nowhere else."""
