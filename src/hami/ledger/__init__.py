"""The truth in memory: what every card has, who holds what, and the only code that changes it.

One asyncio process, no locks, no awaits: a decision and its reservation happen in
one breath. Durable truth comes in from the API server, nothing here is written anywhere.
"""
