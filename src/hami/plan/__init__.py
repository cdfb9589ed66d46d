"""The decision, pure: an ask and a snapshot in, a plan or refusals out.

Nothing here changes anything, knows a vendor, a clock or a network. The ledger
above holds the truth and is the only one that acts on a plan.
"""
