"""`hami demo`: a real Kubernetes on this machine, the product on it, and the examples placed before your eyes.

`stage` starts the parts, `scene` reads what happened from the API server, `screen` draws it.
"""
