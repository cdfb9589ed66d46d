"""`hami scheduler`: extender, webhook, and the watch that keeps the ledger."""
