"""Six benchmark models written from code: published architectures, seeded weights, no training framework."""
