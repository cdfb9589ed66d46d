"""What the API server tells, read into the ledger: watches, the records they are read as, and who of several replicas
may act on them.
"""
