"""Simulated parts that behave as the real ones: cards, kubelets, nodes, an API server; and traces replayed."""
