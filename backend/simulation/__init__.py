"""The production scheduler in virtual time: what share of deadlines is kept at a load, with a model or a lane more."""
