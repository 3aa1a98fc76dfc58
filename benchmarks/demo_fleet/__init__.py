"""The fleet's demo: one load on three unlike servers behind Envoy, by least request and by the router."""
