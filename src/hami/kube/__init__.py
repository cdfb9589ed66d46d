"""The API server: configuration, calls, list and watch, leases."""
