"""`hami agent`: the node's side, cards, registration, device plugin."""
