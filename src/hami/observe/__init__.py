"""Logs, metrics, health: what the programs say about themselves."""
