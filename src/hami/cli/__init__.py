"""`hami`: what a person types."""
