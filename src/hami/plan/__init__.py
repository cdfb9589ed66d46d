"""The decision, pure: an ask and a snapshot in, a plan or refusals out. `choose` is the door.

`exact` decides on one node, `fleet` looks at all nodes at once, `policies` and `pack` say which of what fits is
preferred, `advice` is for people: why, what would help, what is left. docs/adr/0014 has the order.

Nothing here changes anything, knows a vendor, a clock or a network. The ledger
above holds the truth and is the only one that acts on a plan.
"""
