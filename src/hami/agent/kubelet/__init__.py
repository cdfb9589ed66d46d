"""What kubelet says of itself, and how it is asked."""
