"""The node's cards: found, watched, and as they are told of."""
