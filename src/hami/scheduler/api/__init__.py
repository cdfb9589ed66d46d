"""Questions people ask the scheduler: why a pod waits, whether an ask would fit, how fragmented the cards are.

Served beside the extender on the HTTPS port, to whom the API server knows and for what he may see. Read only.
"""
