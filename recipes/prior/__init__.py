"""Makes a prior: one loss that is good on many tasks at once."""
