"""The exact answer on one node: what `fit` plans, and the rules, scores, charges and quotas it goes by.

Plain values and plain Python, so that a vendor's rule can be read. Knows neither columns nor who is told.
"""
