"""Files from the network: fetched with a progress bar, their contents verified by hash."""
