"""Several devices and servers: what each says of itself, and decisions over them. Pure: no socket, thread or clock."""
