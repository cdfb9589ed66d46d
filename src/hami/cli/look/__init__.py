"""Looking at a cluster from a shell: where answers come from, how they are drawn, what is recorded."""
