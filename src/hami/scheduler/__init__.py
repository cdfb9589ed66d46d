"""`hami scheduler`: extender, webhook, and the watch that keeps the ledger. docs/adr/0015 has its rooms."""
