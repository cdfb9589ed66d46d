"""Values of the product: no I/O, no JSON, no Kubernetes.

Every decision is one chain: Ask -> Plan | Refusals -> Reservation -> Grant; what is used of it the broker tells.
"""
