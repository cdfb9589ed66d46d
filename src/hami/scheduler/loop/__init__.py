"""Whose turn it is in the one event loop: requests in order, long work a little at a time, the rest in between."""
