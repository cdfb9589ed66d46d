"""Simulated parts that behave as the real ones: cards, nodes, time."""
