"""What people are told: why an ask fits or does not, what would help, what is left and of what use it is.

Every answer is tried with the decision's own `fit`. Nothing here takes part in a decision.
"""
