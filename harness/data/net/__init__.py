"""Files from the network: fetched, verified, with a progress bar. What they hold is checked by its hash."""
