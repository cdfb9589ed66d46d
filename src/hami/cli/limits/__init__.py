"""What slices' limits are held against: the measuring program, the checks, and what the agent says is used."""
