"""The HTTP edge: who may connect, which path goes where, bytes in and bytes out. Decides nothing."""
