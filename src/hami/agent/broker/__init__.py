"""The broker: the library in each sliced container registers here, hears its limits and tells what it uses."""
