"""Reports on a log: what made requests late, and who slows whom."""
