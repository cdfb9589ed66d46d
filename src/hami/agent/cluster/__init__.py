"""What the API server is told: cards registered, outcomes of allocations."""
