"""Traces of clusters replayed through the real engine in virtual time: what `hami simulate` runs.

`files` reads one, `experiment` runs it; `replay` is the clock, `placers` are who decides, `cluster` is where jobs end
up, `report` and `charts` show it. Knows no simulated card, kubelet or API server: nothing here talks to anybody.
"""
