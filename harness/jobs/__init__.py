"""A suite as a job on a Ray cluster, sent from a machine outside through Ray's Jobs API: see `capsbench submit`."""
