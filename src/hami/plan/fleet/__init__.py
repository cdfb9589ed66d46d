"""Thousands of nodes at once, by columns: which may serve an ask, and what the others refuse it for.

A derived, fast answer to what `exact` says of one node, which has the last word where columns cannot tell.
`scan` and `sieve` look at one want, `together` at several of one pod, `screen` brings them to a verdict a node,
`verdicts` keeps it until the node changes.
"""
