"""A history for people: on the screen, and as one page that needs nothing else."""
