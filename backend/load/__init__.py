"""Load on a server: when requests leave, their sending, and what became of them."""
