"""From kubelet's ask to a container's grant and back: whose it is, whether it may be, what it gets, what is kept."""
