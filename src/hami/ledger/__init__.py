"""What is taken and what is free: the in-memory truth and its only writers."""
