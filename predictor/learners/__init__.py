"""Learners of slowdown behind one contract, a file each."""
