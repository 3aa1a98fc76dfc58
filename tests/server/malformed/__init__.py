"""Broken requests and broken models on a real server: each is answered with a sentence, and good traffic goes on.

`asked` has a right request and its answer, `request_faults`, `config_faults` and `file_faults` what is wrong with one,
`sender` and `loader` send and judge, `campaign` puts them together, for the tests here and for
`python -m tests.server.malformed`.
"""
